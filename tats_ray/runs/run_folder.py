"""Where a run lies."""

from __future__ import annotations

from pathlib import Path

from tats_ray.config.finetune_schema import Clustered
from tats_ray.core.errors import UsageError

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
