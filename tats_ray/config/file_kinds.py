"""What a YAML file is for, told from its fields: whoever gives the wrong one learns the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tats_ray.core.errors import UsageError

KindName = Literal["run", "finetune", "sweep", "cluster", "manifest"]


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of YAML file."""

    words: str
    fields: frozenset[str]
    """That no other kind has at its top."""
    command: str
    """What takes such a file."""


KINDS: Mapping[KindName, FileKind] = {
    "manifest": FileKind(
        "a Kubernetes manifest",
        frozenset({"apiVersion"}),
        "check it with `tats cluster lint {path}`, apply it with `kubectl apply -f {path}`",
    ),
    "cluster": FileKind(
        "a Ray cluster file",
        frozenset({"cluster_name", "provider", "available_node_types", "head_node_type"}),
        "check it with `tats cluster lint {path}`, start the cluster with `ray up {path}`",
    ),
    "sweep": FileKind(
        "a sweep", frozenset({"base", "table", "space", "search"}), "use `tats tune {path}`"
    ),
    "finetune": FileKind(
        "a configuration of fine-tuning",
        frozenset({"augment", "test", "start", "from_scratch", "new_head"}),
        "use `tats finetune CHECKPOINT DATA --config {path}`",
    ),
    "run": FileKind(
        "a configuration of pre-training",
        frozenset({"sampler", "algorithm", "loop", "env"}),
        "use `tats pretrain {path}`",
    ),
}


def refuse_other_kinds(raw: Mapping[str, Any], path: object, *wanted: KindName) -> None:
    """Refuse a file of another kind, unless it also has fields of the kinds that are wanted.

    Raises:
        UsageError: saying what the file is, and which command takes it.
    """
    if any(KINDS[name].fields & raw.keys() for name in wanted):
        return
    for kind in KINDS.values():
        if kind.fields & raw.keys():
            expected = " or ".join(KINDS[name].words for name in wanted)
            way_out = kind.command.format(path=path)
            raise UsageError(f"{path} is {kind.words}, not {expected}; {way_out}")
