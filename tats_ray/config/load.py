"""File, dict and command-line flags to `RunConfig`, strictly. pydantic and yaml enter here.

There is one reader. YAML, `--branch.field value` flags and a sweep's samples all become the same
nested dict, which is checked against the declared types: unknown fields are refused with the
nearest known name, values are coerced to the declared type (so `1e-4`, which YAML reads as a
string, is a number where a number is declared).
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from tats_ray.config.docstrings import field_docstrings
from tats_ray.config.file_kinds import refuse_other_kinds
from tats_ray.config.finetune_schema import Clustered, FinetuneConfig
from tats_ray.config.parts import algorithm_class, swap_parts
from tats_ray.config.paths import config_file, put_at_home
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError, did_you_mean

_SEVERAL = ("betas", "seeds", "log.trackers")
"""Flags of these endings take several values, and all but the last take numbers."""
_RATES = "; did you mean optim.base_lr, the autoencoder's, or algorithm.lr, the sampler's?"
"""A near name with a far meaning: the two differ by a factor of a hundred."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
"""For values in messages: aliases of YAML make values without an end."""
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "several values",
    "list": "a list",
    "dict": "a mapping",
    "dataclass": "a mapping of fields",
}
"""Beginning of the name of pydantic's error -> what the field must be."""

OFFICIAL_FLAGS: Mapping[str, str] = {
    "data_path": "data.train_list",
    "output_dir": "checkpoint.folder",
    "log_dir": "checkpoint.folder",
    "mask_type": "sampler.name",
    "mask_ratio": "sampler.mask_ratio",
    "model": "model.size",
    "decoder_depth": "model.decoder_depth",
    "batch_size": "optim.batch_size",
    "num_frames": "data.num_frames",
    "sampling_rate": "data.stride",
    "opt_betas": "optim.betas",
    "warmup_epochs": "optim.warmup_epochs",
    "save_ckpt_freq": "checkpoint.every_epochs",
    "epochs": "loop.epochs",
    "nproc_per_node": "cluster.num_workers",
    "traj_attention": "sampler.trajectory_attention",
    "num_traj_attn_blocks": "sampler.num_blocks",
    "num_epochs_train_mae_only": "loop.mae_only_epochs",
    "policy_loss_coefficient": "algorithm.policy_coef",
    "value_loss_coefficient": "algorithm.value_coef",
    "entropy_coefficient": "algorithm.entropy_coef",
    "update_steps_mae": "loop.mae_steps_per_update",
    "update_steps_ppo": "algorithm.update_steps",
    "softmax_temp": "sampler.temperature",
}
"""Flags of the official training script, accepted as other names of our fields."""

_FIXED_FLAGS: Mapping[str, str] = {"opt": "adamw"}
"""Official flags whose one value is always so here."""

_OFFICIAL_VALUES: Mapping[tuple[str, str], str] = {
    ("mask_type", "learnable"): "tats",
    ("model", "adaptive_pretrain_videomae_base_patch16_224"): "base",
}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        there = f"; {path.parent} has {', '.join(near)}" if near else ""
        raise UsageError(f"config {path} does not exist{there}") from None
    except IsADirectoryError:
        raise UsageError(
            f"config {path} is a folder without a config.yaml; give a YAML file"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"config {path} is not text in UTF-8; give a YAML file, such as those in tune_configs"
        ) from None
    except OSError as error:
        raise UsageError(f"config {path} cannot be read: {error.strerror}") from None
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str) -> dict[str, Any]:
    """One mapping from YAML text; safe loading only."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2000-13-01
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UsageError(f"config {source}{where} is not YAML: {error}".split("\n")[0]) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"config {source} must be a mapping of fields, not a {type(raw).__name__}")
    if odd := [key for key in raw if not isinstance(key, str)]:
        raise UsageError(f"config {source} has the field {odd[0]!r}; names of fields are words")
    return raw


def load_config(path: str | Path, flags: Sequence[str] = ()) -> RunConfig:
    """A config file with command-line flags over it.

    Args:
        path: the file, or a run folder, which has one.
        flags: `--branch.field value` or `--branch.field=value`; official flag names work too.

    Raises:
        UsageError: one line that names file or flag, field and value.
    """
    path = config_file(path)
    raw = read_yaml(path)
    refuse_other_kinds(raw, path, "run")
    raw.setdefault("name", path.stem)
    put_at_home(raw, path)
    pairs = parse_flags(flags)
    typed = dict(pairs)
    with blaming(str(path), typed):
        swapped = swap_parts(raw, typed)
    for branch, name, left_out in swapped:
        text = f"{branch} {name} has no {', '.join(left_out)}: ignoring what {path} sets"
        print(f"{'note':>14}  {text}")  # above the plan, and in its form
    for dotted, value in pairs:
        set_field(raw, dotted, flag_value(dotted, value))
    return parse_config(raw, source=str(path), typed=typed)


def parse_config(
    raw: Mapping[str, Any], *, source: str = "config", typed: Collection[str] = ()
) -> RunConfig:
    """A nested dict to a `RunConfig`.

    Args:
        typed: the fields that do not come from `source` but from the command line.
    """
    values = dict(raw)
    algorithm = values.get("algorithm") or {}
    sampler = values.get("sampler")
    if isinstance(sampler, Mapping) and isinstance(sampler.get("options"), Mapping):
        options = {key: _option(value) for key, value in sampler["options"].items()}
        values["sampler"] = {**sampler, "options": options}
    with blaming(source, typed):
        if isinstance(algorithm, Mapping):
            cls = algorithm_class(str(algorithm.get("name", "ppo")))
            values["algorithm"] = validated(cls, algorithm, "algorithm.")
        config: RunConfig = validated(RunConfig, values)
    return config


@contextmanager
def blaming(source: str, typed: Collection[str] = ()) -> Iterator[None]:
    """Have an error begin with the place where the field was set that it is about."""
    try:
        yield
    except UsageError as error:
        field = re.match(r"(?:unknown field )?([\w.]*\w)", str(error))
        # A branch of what was typed, or an element of it.
        names = [(f"{name}.", f"{field[1]}.") for name in typed] if field else []
        is_typed = any(a.startswith(b) or b.startswith(a) for a, b in names)
        place = "command line" if is_typed else source
        raise UsageError(f"{place}: {error}") from error.__cause__


def parse_flags(
    flags: Sequence[str], *, official: Mapping[str, str] = OFFICIAL_FLAGS
) -> list[tuple[str, str]]:
    """Command-line words to (dotted field, text) pairs, official names translated."""
    pairs: list[tuple[str, str]] = []
    words = list(flags)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}; set fields with --branch.field VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words or words[0].startswith("--"):
                raise UsageError(_without_value(word))
            value = words.pop(0)
            while words and not words[0].startswith("--"):
                is_word = name.endswith(_SEVERAL[-1])
                if not (name.endswith(_SEVERAL) and (is_word or _is_number(words[0]))):
                    raise UsageError(
                        f"unexpected argument {words[0]!r} after {word} {value}; set fields "
                        "with --branch.field VALUE"
                    )
                value += f" {words.pop(0)}"  # `--opt_betas 0.9 0.95`
        name = name.replace("-", "_")
        if official and name in _FIXED_FLAGS:
            if value.lower() != _FIXED_FLAGS[name]:
                raise UsageError(f"--{name} {value} is not supported; use {_FIXED_FLAGS[name]}")
            continue
        if name in official:
            value = _OFFICIAL_VALUES.get((name, value), value)
        pairs.append((official.get(name, name), value))
    return pairs


def _without_value(word: str) -> str:
    """What to say about a flag without a value, which may be no flag at all."""
    name = word[2:].replace("-", "_")
    both = [*field_docs(), *field_docs(FinetuneConfig())]
    known = [*(f"--{dotted}" for dotted, _, _ in both), *(f"--{flag}" for flag in OFFICIAL_FLAGS)]
    if f"--{name}" in known or name.startswith(("algorithm.", "sampler.options.", "sweep.")):
        return f"flag {word} has no value; use {word} VALUE"
    hint = did_you_mean(f"--{name}", known) or "; `tats fields` lists all fields"
    return f"there is no flag {word}{hint}"


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return math.isfinite(float(text))
    return False


def finetune_config(path: str | Path | None, flags: Sequence[str] = ()) -> FinetuneConfig:
    """A fine-tuning file, or the defaults, with command-line flags over it; our own names only.

    Raises:
        UsageError: one line that names file or flag, field and value.
    """
    raw: dict[str, Any] = {"name": "finetune"}
    if path is not None:
        path = config_file(path)
        raw = read_yaml(path)
        refuse_other_kinds(raw, path, "finetune")
        raw.setdefault("name", path.stem)
        put_at_home(raw, path)
    typed = dict(parse_flags(flags, official={}))
    for dotted, value in typed.items():
        set_field(raw, dotted, value)
    return parse_finetune(raw, source=str(path or "command line"), typed=typed)


def parse_finetune(
    raw: Mapping[str, Any], *, source: str = "config", typed: Collection[str] = ()
) -> FinetuneConfig:
    """A nested dict to a `FinetuneConfig`; `typed` as for `parse_config`."""
    with blaming(source, typed):
        config: FinetuneConfig = validated(FinetuneConfig, raw)
    return config


def dump_config(config: Clustered) -> str:
    """YAML that `parse_config` or `parse_finetune` reads back to an equal config."""
    return yaml.safe_dump(asdict(config), sort_keys=False)


def field_docs(config: Any = None) -> list[tuple[str, str, Any]]:
    """(dotted name, help text, value) of every field; default: pre-training's, with PPO."""
    rows: list[tuple[str, str, Any]] = []

    def walk(instance: Any, prefix: str) -> None:
        docs = field_docstrings(type(instance))
        for f in fields(instance):
            value = getattr(instance, f.name)
            if is_dataclass(value):
                walk(value, f"{prefix}{f.name}.")
            else:
                rows.append((f"{prefix}{f.name}", docs.get(f.name, ""), value))

    walk(parse_config({}) if config is None else config, "")
    return rows


def _option(value: Any) -> Any:
    """Its type is not declared here, so text that reads as a number is one: flags, YAML's 1e-4."""
    if not isinstance(value, str):
        return value
    for read in ({"true": True, "false": False}.__getitem__, int, float):
        with suppress(KeyError, ValueError):
            return read(value)
    return value


def set_field(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value into a nested dict, its branches made where they are missing."""
    *branches, last = dotted.split(".")
    node = raw
    for branch in branches:
        child = node.setdefault(branch, {})
        if not isinstance(child, dict):
            raise UsageError(f"--{dotted}: {branch} is a single value without fields")
        node = child
    node[last] = value


def flag_value(dotted: str, text: str) -> Any:
    """What was typed behind a flag; several values become lists."""
    is_pair = dotted.endswith("betas") and (" " in text or "," in text)
    is_list = is_pair or dotted == "log.trackers"
    return text.replace(",", " ").split() if is_list else text


def validated(cls: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    """A nested dict to a dataclass; `prefix` stands before the fields in messages."""
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise UsageError(_explain(error, cls, prefix)) from None


def _explain(error: ValidationError, cls: type[Any], prefix: str) -> str:
    """The first problem, in one line; fields a reader can find, not types it has to decode."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = prefix + ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        owner = cls
        for part in path[:-1]:
            owner = get_type_hints(owner)[part]
        known = [f.name for f in fields(owner)]
        where = prefix + "".join(f"{part}." for part in path[:-1])
        near = _RATES if cls is RunConfig and path[-1] in ("lr", "learning_rate") else ""
        near = near or did_you_mean(path[-1], known, where) or _elsewhere(path[-1], cls)
        hint = near or f"; known fields: {', '.join(known)}"
        return f"unknown field {dotted}{hint}{more}"
    if first["type"] == "value_error":
        # Raised by a __post_init__, which names the field itself.
        return str(first["ctx"]["error"]) + more
    if first["type"] == "missing":
        return f"{dotted} is missing{more}"
    wanted = _KINDS.get(first["type"].partition("_")[0]) or first.get("ctx", {}).get("expected")
    if wanted:
        return f"{dotted} must be {wanted}, got {_SHORT.repr(first['input'])}{more}"
    return f"{dotted}: {first['msg'].lower()}, got {_SHORT.repr(first['input'])}{more}"


def _elsewhere(name: str, cls: type[Any]) -> str:
    """The same or a similar field in another branch."""
    is_finetune = cls is FinetuneConfig
    docs = field_docs(FinetuneConfig() if is_finetune else None)
    by_last = {dotted.rsplit(".", 1)[-1]: dotted for dotted, _, _ in docs}
    match = difflib.get_close_matches(
        name, [*by_last, *({} if is_finetune else OFFICIAL_FLAGS)], n=1
    )
    return f"; did you mean {by_last.get(match[0], match[0])}?" if match else ""
