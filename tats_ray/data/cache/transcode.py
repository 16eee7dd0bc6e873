"""`tats data transcode`: a list's videos as films with many key frames, and the list of those."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.words import counted, first_few
from tats_ray.data.cache.films import film_path
from tats_ray.data.cache.frame_cache import name_of, version
from tats_ray.data.cache.make_cache import Forecast, MadeCache, make_cache, stored_videos
from tats_ray.data.cache.shards import FilmSettings
from tats_ray.data.catalog.make_lists import put_text
from tats_ray.data.manifest import VideoEntry, list_text, read_list


@dataclass(frozen=True)
class Transcoded:
    """The films of a list."""

    made: MadeCache
    new_list: Path
    left_out: dict[str, str]
    """Videos without a readable frame, with reasons: the new list does not name them."""
    notes: list[str]

    def __str__(self) -> str:
        lines = [str(self.made), *self.notes]
        if self.left_out:
            what = counted(len(self.left_out), "video")
            lines.append(f"note: {what} left out of the list: {first_few(self.left_out)}")
        return "\n".join([*lines, str(self.new_list)])


def transcode(
    path: Path,
    out: Path,
    settings: FilmSettings,
    *,
    root: str | None = None,
    jobs: int = 1,
    limit_s: float = 60.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_forecast: Callable[[Forecast], None] = lambda forecast: None,
) -> Transcoded:
    """Encode those videos of a list that the folder has no film of, and write the list of films.

    Frame i of a film is frame i of its video, scaled, at one rate. Labels stay.

    Args:
        path, out, root, jobs, limit_s, on_progress, on_forecast: as those of `make_cache`.

    Raises:
        UsageError: as `make_cache` does, for videos outside of the root, and where not one video
            can be read.
    """
    entries = read_list(path, root=root)
    for entry in entries:
        _check_inside(entry, path)
    if (out / path.name).absolute() == path.absolute():
        raise UsageError(f"{out} holds {path.name} itself; name another folder for the films")
    made = make_cache(
        path,
        out,
        settings,
        root=root,
        jobs=jobs,
        limit_s=limit_s,
        on_progress=on_progress,
        on_forecast=on_forecast,
    )
    known, rows, left_out = stored_videos(out, settings), [], {}
    for entry in entries:
        left_out[entry.path] = "changed meanwhile"
        with suppress(VideoError):
            video = known.get(version(entry))
            if video is not None and video.stored:
                del left_out[entry.path]
                rows.append((str(film_path(out, video.name).relative_to(out)), entry.label))
            elif video is not None:
                left_out[entry.path] = video.reason
    if not rows:
        raise UsageError(f"no video of {path} can be read: {first_few(left_out)}")
    try:
        notes = put_text(out / path.name, list_text(rows))
    except OSError as error:
        raise UsageError(f"{out / path.name} cannot be written ({error.strerror})") from error
    return Transcoded(made, out / path.name, left_out, notes)


def _check_inside(entry: VideoEntry, path: Path) -> None:
    name = PurePosixPath(name_of(entry))
    if name.is_absolute() or ".." in name.parts:
        raise UsageError(
            f"{path}: {entry.path} is not beneath the folder of the list, so its film would have "
            "no place; name the folder that holds all videos with --root"
        )
