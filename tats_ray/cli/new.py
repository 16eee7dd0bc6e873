"""`tats new`: a file to start from, which works as it is, and its test."""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Container
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import tyro

from tats_ray.cli.command import PlainCommand, TextArg
from tats_ray.core.errors import UsageError

# Longer ones would not fit into the lines of the examples.
_LONGEST_NAME = 30


@dataclass(frozen=True)
class New(PlainCommand):
    """Write a short file of your own to start from, which works as it is, and its test."""

    what: tyro.conf.Positional[Literal["algorithm", "sampler"]]
    """What to write."""
    name: TextArg
    """Name of the module, for example my_algorithm."""
    folder: Path = Path()
    """Folder for the two files. The default is the current folder."""

    def carry_out(self) -> None:
        from tats_ray.config.plugins import ALGORITHMS, SAMPLERS

        is_algorithm = self.what == "algorithm"
        taken = ALGORITHMS if is_algorithm else SAMPLERS
        made = write_from_example(self.what, self.name, self.folder, taken=taken)
        reference = f"{self.name}:{made.class_name}{'Config' * is_algorithm}"
        print(f"{made.source}\n{made.test}")
        # Every process of a run imports the module; the folder of the command is searched anyway.
        path = shlex.quote(str(self.folder.resolve()))
        is_here = self.folder.resolve() == Path.cwd()
        searched = "" if is_here else f"PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}} "
        print(f"{searched}tats pretrain CONFIG --{self.what}.name {reference}")


@dataclass(frozen=True)
class Written:
    """What was written."""

    source: Path
    test: Path
    class_name: str
    """What stands for `CustomAlgorithm` in the names of its classes."""


def write_from_example(
    kind: str, name: str, folder: Path = Path(), *, taken: Container[str] = ()
) -> Written:
    """Write `examples/custom_<kind>.py` and its test under another name.

    Args:
        taken: names of what the package itself has of this kind.

    Raises:
        UsageError: for a name that is no module name or is taken, a folder that is missing, and
            files that are already there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"{kind} name {name!r} is not a module name; use a name like my_{kind}")
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"{kind} name {name!r} is longer than {_LONGEST_NAME} characters")
    if not folder.is_dir():
        raise UsageError(f"folder {folder} does not exist; make it first")
    module = f"custom_{kind}"
    made = Written(folder / f"{name}.py", folder / f"test_{name}.py", _class_name(name))
    for path in (made.source, made.test):
        if path.exists():
            raise UsageError(f"{path} already exists; choose another name or another --folder")
    if keyword.iskeyword(name) or name in taken or find_spec(name):
        raise UsageError(
            f"{kind} name {name!r} is already used, by Python or a package; choose another"
        )
    for path, example in ((made.source, f"{module}.py"), (made.test, f"test_{module}.py")):
        text = (resources.files("tats_ray.examples") / example).read_text("utf-8")
        text = text.replace(_class_name(module), made.class_name).replace(module, name)
        path.write_text(text, encoding="utf-8")
    return made


def _class_name(name: str) -> str:
    """my_algorithm -> MyAlgorithm."""
    return "".join(word.capitalize() for word in name.split("_"))
