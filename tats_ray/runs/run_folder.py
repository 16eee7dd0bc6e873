"""Where a run lies, and who may work there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.folders import candidates
from tats_ray.checkpoints.format import Reached, newest_reached
from tats_ray.config.differences import deciding
from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.paths import CONFIG_FILE, LISTS, absolute, epochs_field
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.folder_lock import only_run_in
from tats_ray.core.storage import make_folder
from tats_ray.core.words import counted
from tats_ray.data.clip_lists import Lists
from tats_ray.runs.run_record import (
    begun,
    has_videos,
    movable,
    other_videos,
    read_run,
    record_end,
    record_start,
)

_LONGEST_NAME = 200


def run_folder(config: Clustered) -> Path:
    """`<checkpoint.folder>/<name>`.

    Raises:
        UsageError: for a name that is none of a folder.
    """
    if not config.name or "/" in config.name or len(config.name.encode()) > _LONGEST_NAME:
        raise UsageError(
            f"name {config.name[:40]!r} is not a folder name, which has no / and at most "
            f"{_LONGEST_NAME} bytes; use --name NAME"
        )
    return Path(config.checkpoint.folder) / config.name


@contextmanager
def own_folder(config: Clustered, lists: Lists) -> Iterator[Path]:
    """The folder of a run that begins or goes on in it, with its records; no other may enter.

    Raises:
        UsageError: when it is taken, or cannot be written.
    """
    folder = run_folder(config)
    make_folder(folder, way_out="use another --checkpoint.folder or --name")
    with only_run_in(folder):
        record_start(folder, config, lists)
        try:
            yield folder
        except BaseException as error:
            record_end(folder, "failed", str(error) or type(error).__name__)
            raise


class Past:
    """What a run folder holds before a run begins or goes on in it.

    Args:
        read: configuration file -> configuration; that of the run that is continued.
        extend: go on beyond the last epoch, to the one of `config`.

    Raises:
        UsageError: when there is no run to go on with, or one that was begun otherwise.
    """

    def __init__(
        self,
        config: Clustered,
        lists: Lists,
        *,
        resume: bool,
        extend: bool = False,
        read: Callable[[Path], Any],
    ) -> None:
        self.config = config
        self.folder = run_folder(config)
        self.reached: Reached | None = None
        """Where the run goes on; None where it begins."""
        self.epochs = self.new_epochs = int(movable(config)[epochs_field(config)])
        """Of the run until now, and from now on."""
        found = candidates(self.folder / "checkpoints")
        if getattr(config, "init", "") and not (resume or extend):
            found = begun(self.folder)  # what a first attempt left is written anew
        self.is_new = not found
        if found and not (resume or extend):
            raise UsageError(
                f"{self.folder} already holds a run ({found[0].name}); continue it with --resume, "
                "train it longer with --extend, or choose another --name"
            )
        if found:
            self._compare(found, lists, read, extend=extend)
            self.reached = newest_reached(self.folder)
        elif extend or (resume and not (self.folder / CONFIG_FILE).is_file()):
            raise UsageError(
                f"there is no run to resume: {self.folder.resolve()} has neither a checkpoint nor "
                "a config.yaml; check --name and --checkpoint.folder, or start a new run without "
                "--resume"
            )

    @property
    def epochs_done(self) -> int:
        """How many are behind the run."""
        return self.reached.position.epoch if self.reached else 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to train."""
        return self.epochs_done >= self.new_epochs

    def complete_lines(self, longer: str, anew: str) -> Iterator[str]:
        """What to say of a run that is complete.

        Args:
            longer: the command that trains it for more epochs.
            anew: the command that starts another run from its weights.
        """
        assert self.reached is not None
        yield (
            f"{self.folder} is complete: {counted(self.epochs, 'epoch')}, "
            f"{counted(self.reached.position.step, 'step')}, last checkpoint {self.reached.folder}"
        )
        yield f"  to train it longer:                     {longer}"
        yield f"  to start another run from its weights:  {anew}"

    def _compare(
        self, found: list[Path], lists: Lists, read: Callable[[Path], Any], *, extend: bool
    ) -> None:
        """A run goes on with the settings and the videos that it was begun with."""
        # The newest may be damaged: rank 0 says so, and goes on from the one before.
        file = next((f for f in (c / CONFIG_FILE for c in found) if f.is_file()), None)
        if file is None:
            return
        written, typed = deciding(asdict(read(file))), deciding(asdict(self.config))
        now, length = movable(self.config), epochs_field(self.config)
        old = {**written, **{name: written.get(name, "") for name in now}}
        old |= read_run(self.folder).get("settings", {})
        new = typed | now
        # An extension that has made no checkpoint yet may be given another length.
        self.epochs = int((written if extend else old)[length])
        if has_videos(self.folder):
            if wrong := other_videos(self.folder, self.config, lists):
                raise UsageError(f"{wrong}; {self._ways_out('the same videos')}")
            # The same videos: where their frames are read from is free, as their place is.
            free = {*LISTS, "data.cache"}
        else:
            free = set[str]()
        if extend:
            self._check_longer()
            free.add(length)
        # A path may also be typed as at the start, in another working directory.
        pairs = ((old, new), (written, typed))
        paths = {*LISTS, *(name for name, value in now.items() if isinstance(value, str))}
        changed = [
            f"{name} {old.get(name)!r} -> {value!r}"
            for name, value in new.items()
            if name not in free
            and old.get(name) != value
            and not (
                name in paths
                and any(absolute(str(a.get(name))) == absolute(str(b.get(name))) for a, b in pairs)
            )
        ]
        if changed:
            raise UsageError(
                f"{self.folder} was started with other settings: {'; '.join(changed)}; "
                + self._ways_out("the old ones")
            )

    def _check_longer(self) -> None:
        if self.new_epochs <= self.epochs:
            raise UsageError(
                f"--extend needs more than the {counted(self.epochs, 'epoch')} that {self.folder} "
                f"has, got {self.new_epochs}; use --{epochs_field(self.config)} N"
            )

    def _ways_out(self, same: str) -> str:
        weights = f"--init {self.folder}"
        if not isinstance(self.config, RunConfig):
            weights = f"`tats finetune {self.folder}`"
        return (
            f"resume with {same}, train the run longer with --extend "
            f"--{epochs_field(self.config)} N, or start a new run from its weights with {weights} "
            "and another --name"
        )
