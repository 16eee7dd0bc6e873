"""What can be typed behind `tats`, and its help texts. tyro enters the project here."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, get_args, get_type_hints

import tyro

from tats_ray.cli.bench import Bench
from tats_ray.cli.checkpoints import Ckpt, ExportCommand, Report, ShowMasks
from tats_ray.cli.cluster import Cluster, Doctor
from tats_ray.cli.command import Command
from tats_ray.cli.data import Data
from tats_ray.cli.downstream import Extract, ProbeCommand, Test
from tats_ray.cli.envs import Env
from tats_ray.cli.jobs import Logs, Status, Stop, Submit, WatchCommand
from tats_ray.cli.new import New
from tats_ray.cli.selecting import SelectCommand
from tats_ray.cli.train import Demo, Fields, Finetune, Pretrain
from tats_ray.cli.tune import Compare, Tune, TuneReport
from tats_ray.core.errors import UsageError

AnyCommand = (
    Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[ShowMasks, tyro.conf.subcommand("show-masks")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[SelectCommand, tyro.conf.subcommand("select")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Env, tyro.conf.subcommand("env")]
    | Annotated[New, tyro.conf.subcommand("new")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Ckpt, tyro.conf.subcommand("ckpt")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[Extract, tyro.conf.subcommand("extract")]
    | Annotated[ProbeCommand, tyro.conf.subcommand("probe")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Test, tyro.conf.subcommand("test")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Tune, tyro.conf.subcommand("tune")]
    | Annotated[TuneReport, tyro.conf.subcommand("tune-report")]
    | Annotated[Fields, tyro.conf.subcommand("fields")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Submit, tyro.conf.subcommand("submit")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Logs, tyro.conf.subcommand("logs")]
    | Annotated[WatchCommand, tyro.conf.subcommand("watch")]
    | Annotated[Stop, tyro.conf.subcommand("stop")]
    | Annotated[Cluster, tyro.conf.subcommand("cluster")]
)

_WITH_DATA: Mapping[str, type] = {
    "finetune": Finetune,
    "probe": ProbeCommand,
    "test": Test,
    "status": Status,
    "logs": Logs,
    "watch": WatchCommand,
}
"""Commands whose last argument may be left out; tyro would take an unknown flag in its place."""

_WITH_KIND = ("export", "probe")
"""Commands whose first argument is one of a few words."""


def parse(words: Sequence[str]) -> tuple[Command, list[str]]:
    """A command, and the words that are left: fields of the configuration, or what to submit."""
    if list(words[:1]) == ["submit"] and "--" in words:
        cut = list(words).index("--")
        return parse(words[:cut])[0], list(words[cut + 1 :])
    if list(words[:2]) == ["tune", "report"]:  # beside a file name, tyro has no room for a verb
        words = ["tune-report", *words[2:]]
    left: list[str] = []
    if list(words) == ["help"]:
        words = ["--help"]
    if words and not words[0].startswith("-"):
        _refuse_unknown(words[0])
    if words and words[0] in _WITH_KIND and {"-h", "--help"} & {*words}:
        words = [words[0], "--help"]  # of a word that was typed, tyro's usage line knows nothing
    if words and words[0] in _WITH_DATA:
        words, left = _set_aside(words, _WITH_DATA[words[0]])
    command, more = tyro.cli(
        AnyCommand,
        prog="tats",
        description="Trajectory-guided adaptive token selection for masked video modelling.",
        args=words,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return command, [*more, *left]


def _refuse_unknown(word: str) -> None:
    """Name the nearest command, where there is none of this name."""
    known = [get_args(each)[1].name for each in get_args(AnyCommand)]
    if word not in known:
        near = difflib.get_close_matches(word, known, n=1)
        hint = f", did you mean `tats {near[0]}`?" if near else ";"
        raise UsageError(f"there is no command {word!r}{hint} `tats --help` lists all commands")


def _set_aside(words: Sequence[str], command: type) -> tuple[list[str], list[str]]:
    """Words of the command itself, and flags that it does not have with what follows them."""
    own = {*_field_names(command)} - {"kind", "checkpoint", "data", "place"}
    kept: list[str] = []
    left: list[str] = []
    into = kept
    for word in words:
        if word.startswith("--") or word == "-h":
            name = word.lstrip("-").partition("=")[0].replace("-", "_").removeprefix("no_")
            into = kept if name in (*own, "h", "help") else left
        into.append(word)
    return kept, left


def _field_names(kind: type) -> Iterator[str]:
    """Those inside of fields too: they are flags like all others."""
    types = get_type_hints(kind)
    for field in fields(kind):
        inner = types[field.name]
        if isinstance(inner, type) and is_dataclass(inner):
            yield from _field_names(inner)
        else:
            yield field.name
