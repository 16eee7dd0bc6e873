"""The commands about video data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tats_ray.cli.command import (
    CommandGroup,
    MaybePath,
    MaybeText,
    PathArg,
    PlainCommand,
    TextArg,
)
from tats_ray.core.words import byte_size, counted

if TYPE_CHECKING:
    from tats_ray.data.cache.make_cache import Forecast


@dataclass(frozen=True)
class Synth(PlainCommand):
    """Write synthetic videos with known motion, lists and labels."""

    out: PathArg
    """Folder to write. It must be new, or already hold this very data set."""
    num_train: int = 200
    num_val: int = 48
    num_frames: int = 32
    size: int = 96
    """Pixels along each side."""
    seed: int = 0
    look: Literal["vivid", "clear"] = "vivid"
    """clear shows warm sprites on a calm, cool background, which is quick to learn."""

    def carry_out(self) -> None:
        from tats_ray.data.synthetic import synthesize

        made = synthesize(
            self.out,
            num_train=self.num_train,
            num_val=self.num_val,
            num_frames=self.num_frames,
            size=self.size,
            seed=self.seed,
            look=self.look,
        )
        print(f"{made.train_list}\n{made.val_list}")


@dataclass(frozen=True)
class Atari(PlainCommand):
    """Write videos of an Atari game with true states, the objects that move, and lists."""

    game: TextArg
    """A game of ale-py, such as pong, breakout, freeway, seaquest or ms_pacman."""
    out: PathArg
    """Folder to write. It must be new, or already hold this very data set."""
    num_train: int = 400
    num_val: int = 100
    num_frames: int = 32
    frame_skip: int = 2
    """Frames of the game for each frame of a video."""
    seed: int = 0
    needs_states: bool = False
    """Refuse a game whose memory is not annotated, because its videos come without states."""
    workers: int = 2
    """Threads. They do not change the files."""

    def carry_out(self) -> None:
        from tats_ray.data.atari.atari_set import make_atari
        from tats_ray.view.progress import VideoCount

        made = make_atari(
            self.out,
            self.game,
            num_train=self.num_train,
            num_val=self.num_val,
            num_frames=self.num_frames,
            frame_skip=self.frame_skip,
            seed=self.seed,
            needs_states=self.needs_states,
            workers=self.workers,
            progress=VideoCount(),
        )
        print(f"{made.train_list}\n{made.val_list}")
        print(f"{'states':>14}  {', '.join(made.values) or 'none: nobody annotated this game'}")
        if not made.has_motion:
            print(f"{'motion':>14}  unknown: the background does not stand still")


@dataclass(frozen=True)
class Index(PlainCommand):
    """Write train.csv, val.csv, test.csv and classes.json for a downloaded data set or a folder."""

    kind: tyro.conf.Positional[Literal["ucf101", "hmdb51", "k400", "ssv2", "folder"]]
    """What the folder holds; `folder` takes class folders, or videos without classes."""
    root: PathArg
    """Folder with the videos and the official lists, in any folders beneath it."""
    split: int = 1
    """Which of the three splits of UCF101 or HMDB51."""
    out: MaybePath = None
    """Folder for the lists. The default is the folder with the videos."""
    val_share: float = 0.1
    """Share of the videos of `folder` that goes into val.csv, unless it has a folder val."""

    def carry_out(self) -> None:
        from tats_ray.data.catalog.make_lists import index_dataset

        print(
            index_dataset(
                self.kind, self.root, split=self.split, out=self.out, val_share=self.val_share
            )
        )


@dataclass(frozen=True)
class CheckVideos(PlainCommand):
    """Decode every video of a list, and write which are sound and which are broken, and why."""

    list: PathArg
    """The list. Its index, NAME_ok.csv and NAME_bad.csv are written beside it."""
    root: MaybeText = ""
    """Folder of relative paths. The default is that of the list."""
    out: MaybePath = None
    """Another folder for these three files, which then name videos by absolute paths."""
    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = 1
    """Processes that decode."""
    limit_s: float = 60.0
    """Seconds that one file may take."""

    def carry_out(self) -> None:
        from tats_ray.core.errors import TatsError
        from tats_ray.data.catalog.check_videos import check_list
        from tats_ray.view.progress import VideoCount

        shown = VideoCount()
        try:
            checked = check_list(
                self.list,
                root=self.root or None,
                out=self.out,
                jobs=self.jobs,
                limit_s=self.limit_s,
                on_progress=shown,
            )
        except KeyboardInterrupt:
            print(f"stopped after {counted(shown.done, 'video')}; the same command continues there")
            raise
        print(checked)
        if checked.broken:
            broken = f"{len(checked.broken)} of {counted(len(checked.rows), 'video')}"
            raise TatsError(
                f"{broken} cannot be read; {checked.bad_table} says why, "
                f"{checked.ok_list} is the list without them"
            )


@dataclass(frozen=True)
class Cache(PlainCommand):
    """Decode every video of a list once and keep its frames as JPEG, for runs with `data.cache`."""

    list: PathArg
    """The list of videos."""
    out: PathArg
    """Folder of the cache: a new one, or one of the same settings, which keeps what it holds."""
    short_side: int = 256
    """Pixels. Larger videos are scaled down to it. About 1.15 times `data.image_size` is enough."""
    quality: int = 90
    """Of the JPEG frames, 1 to 95."""
    root: MaybeText = ""
    """Folder of relative paths. The default is that of the list."""
    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = 1
    """Processes that decode."""
    limit_s: float = 60.0
    """Seconds that a hundred frames of a file may take."""

    def carry_out(self) -> None:
        from tats_ray.data.cache.make_cache import make_cache
        from tats_ray.data.cache.shards import CacheSettings
        from tats_ray.view.progress import VideoCount

        shown = VideoCount()
        try:
            made = make_cache(
                self.list,
                self.out,
                CacheSettings(self.short_side, self.quality),
                root=self.root or None,
                jobs=self.jobs,
                limit_s=self.limit_s,
                on_progress=shown,
                on_forecast=partial(_tell_forecast, jobs=self.jobs),
            )
        except KeyboardInterrupt:
            print("stopped; the same command continues behind the last whole shard")
            raise
        print(made)


@dataclass(frozen=True)
class Transcode(PlainCommand):
    """Encode every video of a list as a small mp4 with many key frames, and list those."""

    list: PathArg
    """The list of videos. The list of the new ones has its name, and the same class ids."""
    out: PathArg
    """Folder of the new videos: a new one, or one of the same settings, which keeps what it has."""
    short_side: int = 256
    """Pixels. Larger videos are scaled down to it. About 1.15 times `data.image_size` is enough."""
    gop: int = 12
    """Frames from one key frame to the next."""
    crf: int = 18
    """Quality of H.264, 1 to 51. Lower is better and larger."""
    root: MaybeText = ""
    """Folder of relative paths, and of all videos. The default is that of the list."""
    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = 1
    """Processes that decode and encode."""
    limit_s: float = 60.0
    """Seconds that a hundred frames of a file may take."""

    def carry_out(self) -> None:
        from tats_ray.data.cache.shards import FilmSettings
        from tats_ray.data.cache.transcode import transcode
        from tats_ray.view.progress import VideoCount

        try:
            made = transcode(
                self.list,
                self.out,
                FilmSettings(self.short_side, self.crf, self.gop),
                root=self.root or None,
                jobs=self.jobs,
                limit_s=self.limit_s,
                on_progress=VideoCount(),
                on_forecast=partial(_tell_forecast, jobs=self.jobs),
            )
        except KeyboardInterrupt:
            print("stopped; the same command continues behind the last whole part")
            raise
        print(made)


def _tell_forecast(forecast: Forecast, jobs: int) -> None:
    from tats_ray.view.progress import format_duration

    with_ = counted(jobs, "process")
    print(
        f"{counted(forecast.num_videos, 'video')} to decode: about "
        f"{byte_size(forecast.num_bytes)}, {format_duration(forecast.seconds)} with {with_}",
        file=sys.stderr,
        flush=True,
    )


@dataclass(frozen=True)
class Data(CommandGroup):
    """Lists (`index`, `check`), faster copies (`cache`, `transcode`), videos (`atari`, `synth`)."""

    action: (
        Annotated[Synth, tyro.conf.subcommand("synth")]
        | Annotated[Atari, tyro.conf.subcommand("atari")]
        | Annotated[Index, tyro.conf.subcommand("index")]
        | Annotated[CheckVideos, tyro.conf.subcommand("check")]
        | Annotated[Cache, tyro.conf.subcommand("cache")]
        | Annotated[Transcode, tyro.conf.subcommand("transcode")]
    )
