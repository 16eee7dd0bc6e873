"""Where a run lies."""

from __future__ import annotations

from pathlib import Path

from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError


def run_folder(config: RunConfig | FinetuneConfig) -> Path:
    """`<checkpoint.folder>/<name>`.

    Raises:
        UsageError: for a name that is none of a folder.
    """
    if not config.name or "/" in config.name:
        raise UsageError(f"name {config.name!r} is no folder name; use --name NAME")
    return Path(config.checkpoint.folder) / config.name
