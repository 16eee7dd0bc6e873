"""Where a run lies, and who may work there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.folders import candidates
from tats_ray.config.differences import deciding
from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.load import dump_config
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder
from tats_ray.runs.run_lock import only_run_in

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
def own_folder(config: Clustered, *, resume: bool, read: Callable[[Path], Any]) -> Iterator[Path]:
    """The folder of a run that begins or goes on in it, with its `config.yaml`; no other may enter.

    Args:
        read: configuration file -> configuration; that of the run that is continued.

    Raises:
        UsageError: when it is taken, not there, cannot be written, or was begun otherwise.
    """
    folder = run_folder(config)
    _check_folder(folder, asdict(config), resume=resume, read=read)
    make_folder(folder, way_out="use another --checkpoint.folder or --name")
    with only_run_in(folder):
        (folder / "config.yaml").write_text(dump_config(config))
        yield folder


def _check_folder(
    folder: Path, settings: Mapping[str, Any], *, resume: bool, read: Callable[[Path], Any]
) -> None:
    """A fresh run needs a fresh folder; a continued one needs its own.

    Args:
        settings: of the run that is to begin.
    """
    found = candidates(folder / "checkpoints")
    if not found:
        if resume and not (folder / "config.yaml").is_file():
            raise UsageError(
                f"there is no run to resume: {folder.resolve()} has neither a checkpoint nor a "
                "config.yaml; check --name and --checkpoint.folder, or start a new run without "
                "--resume"
            )
        return
    if not resume:
        raise UsageError(
            f"{folder} already holds a run ({found[0].name}); continue it with --resume, "
            "or choose another --name"
        )
    # The newest may be damaged: rank 0 says so, and goes on from the one before.
    begun = next((f for f in (c / "config.yaml" for c in found) if f.is_file()), None)
    if begun is None:
        return
    old, new = deciding(asdict(read(begun))), deciding(settings)
    changed = [f"{k} {old.get(k)!r} -> {v!r}" for k, v in new.items() if old.get(k) != v]
    if changed:
        raise UsageError(
            f"{folder} was started with other settings: {'; '.join(changed)}; "
            "resume with the old ones, or choose another --name"
        )
