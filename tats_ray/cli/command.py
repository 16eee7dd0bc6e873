"""What all commands share: they run, with the remaining words of the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from tats_ray.core.errors import UsageError


def _number_or_none(words: list[str]) -> float | None:
    """Tyro's own reader of a union names types, and not what to write."""
    try:
        return None if words[0].lower() == "none" else float(words[0])
    except ValueError:
        raise ValueError(f"{words[0]!r} is not a number; give a number or none") from None


PathArg = Annotated[Path, tyro.conf.Positional, tyro.conf.PositionalMetavarFromFieldName]
TextArg = Annotated[str, tyro.conf.Positional, tyro.conf.PositionalMetavarFromFieldName]
# Their help says what holds without them, and None would not.
MaybePath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
MaybeFloat = Annotated[
    float | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=_number_or_none,
        is_instance=lambda value: value is None or isinstance(value, float),
        str_from_instance=lambda value: [str(value)],
    ),
    tyro.conf.arg(metavar="FLOAT", help_behavior_hint=""),
]
MaybeText = Annotated[str, tyro.conf.arg(help_behavior_hint="")]
MaybeNumbers = Annotated[tuple[float, ...], tyro.conf.arg(help_behavior_hint="")]
MaybeDataArg = Annotated[
    Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]", help_behavior_hint="")
]
MaybeRunArg = Annotated[
    Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")
]


class Command(ABC):
    """A command as it was typed. Its fields are its flags, their docstrings its help."""

    outlives_reader: ClassVar[bool] = False
    """Whether it goes on when nobody reads its output any more, as a run does."""

    @abstractmethod
    def run(self, flags: Sequence[str]) -> None:
        """Carry it out. What is heavy is imported here, so that help comes at once.

        Args:
            flags: words that are not its own: fields of a configuration, or a command to submit.
        """


class PlainCommand(Command):
    """A command that refuses words that are none of its own flags."""

    manual: ClassVar[str] = "tats --help"
    """Where the words are listed."""

    def run(self, flags: Sequence[str]) -> None:
        if flags:
            raise UsageError(f"unexpected {' '.join(flags)}; see {self.manual}")
        self.carry_out()

    @abstractmethod
    def carry_out(self) -> None: ...


class CommandGroup(Command):
    """A word with commands of its own behind it."""

    action: Command

    def run(self, flags: Sequence[str]) -> None:
        self.action.run(flags)
