"""`tats new sampler`: a file to start from, which works as it is, and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Container
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tats_ray.config.plugins import SAMPLERS
from tats_ray.core.errors import UsageError

# Longer ones would not fit into the lines of the examples.
_LONGEST_NAME = 30


@dataclass(frozen=True)
class Written:
    """What was written, and what trains it."""

    source: Path
    test: Path
    train_command: str


def new_sampler(name: str, folder: Path = Path()) -> Written:
    """Write `<folder>/<name>.py` and `<folder>/test_<name>.py`, as `examples/` has them.

    Raises:
        UsageError: as `write_from_example`.
    """
    return write_from_example("sampler", name, folder, taken=SAMPLERS)


def write_from_example(kind: str, name: str, folder: Path, *, taken: Container[str]) -> Written:
    """`examples/custom_<kind>.py` and its test under another name.

    Raises:
        UsageError: for a name that is no module name or is taken, a folder that is missing, and
            files that are already there.
    """
    source, test = folder / f"{name}.py", folder / f"test_{name}.py"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"{kind} name {name!r} is no module name; use a name like my_{kind}")
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"{kind} name {name!r} is longer than {_LONGEST_NAME} characters")
    if not folder.is_dir():
        raise UsageError(f"folder {folder} does not exist; make it first")
    for path in (source, test):
        if path.exists():
            raise UsageError(f"{path} already exists; choose another name or another --folder")
    if keyword.iskeyword(name) or name in taken or importlib.util.find_spec(name):
        raise UsageError(f"{kind} name {name!r} is taken, by Python, a package or this one")
    old, new = f"custom_{kind}", "".join(word.capitalize() for word in name.split("_"))
    for path, file in ((source, f"{old}.py"), (test, f"test_{old}.py")):
        text = resources.files("tats_ray.examples").joinpath(file).read_text(encoding="utf-8")
        text = text.replace(old, name).replace(f"Custom{kind.capitalize()}", new)
        path.write_text(text, encoding="utf-8")
    where = shlex.quote(str(folder.resolve()))  # every process of a run imports the module
    command = f"PYTHONPATH={where} tats pretrain CONFIG --{kind}.name {name}:{new}"
    return Written(source, test, command)
