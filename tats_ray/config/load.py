"""File, dict and command-line flags to `RunConfig`, strictly. pydantic and yaml enter here.

There is one reader. YAML, `--branch.field value` flags and a sweep's samples all become the same
nested dict, which is checked against the declared types: unknown fields are refused with the
nearest known name, values are coerced to the declared type (so `1e-4`, which YAML reads as a
string, is a number where a number is declared).
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from tats_ray.config.file_kinds import refuse_other_kinds
from tats_ray.config.finetune_schema import Clustered, FinetuneConfig
from tats_ray.config.plugins import load_named
from tats_ray.config.schema import AlgorithmConfig, RunConfig
from tats_ray.core.errors import UsageError, did_you_mean

_SEVERAL = ("betas", "seeds")
"""Flags of these endings take several numbers."""
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
    "tuple": "several numbers",
    "list": "a list",
    "dict": "a mapping",
    "dataclass": "a mapping of fields",
}
"""Beginning of the name of pydantic's error -> what the field must be."""

ALGORITHMS: Mapping[str, str] = {
    "ppo": "tats_ray.algorithms.ppo:PPOConfig",
    "a2c": "tats_ray.algorithms.a2c:A2CConfig",
    "reinforce": "tats_ray.algorithms.reinforce:ReinforceConfig",
    "grpo": "tats_ray.algorithms.grpo:GRPOConfig",
    "rloo": "tats_ray.algorithms.rloo:RLOOConfig",
}
"""Algorithm names and where their configurations live; `module:Class` works unlisted."""

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


def algorithm_class(name: str) -> type[AlgorithmConfig]:
    """The configuration class of a named algorithm, or of `module:Class`.

    Raises:
        UsageError: for an unknown name, with the nearest; for a plug-in that does not import,
            with the import error.
    """
    found = load_named("algorithm.name", name, ALGORITHMS)
    if not (isinstance(found, type) and issubclass(found, AlgorithmConfig)):
        raise UsageError(f"algorithm.name {name!r} is not a subclass of AlgorithmConfig")
    return found


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
        own = path / "config.yaml"
        there = f"give {own}" if own.is_file() else "give a YAML file"
        raise UsageError(f"config {path} is a folder; {there}") from None
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
        flags: `--branch.field value` or `--branch.field=value`; official flag names work too.

    Raises:
        UsageError: one line that names file or flag, field and value.
    """
    raw = read_yaml(path)
    refuse_other_kinds(raw, path, "run")
    raw.setdefault("name", Path(path).stem)
    pairs = parse_flags(flags)
    for branch, name, left_out in swap_parts(raw, dict(pairs)):
        text = f"{branch} {name} has no {', '.join(left_out)}: ignoring what {path} sets"
        print(f"{'note':>14}  {text}")  # above the plan, and in its form
    for dotted, value in pairs:
        set_field(raw, dotted, flag_value(dotted, value))
    return parse_config(raw, source=str(path))


def parse_config(raw: Mapping[str, Any], *, source: str = "config") -> RunConfig:
    """A nested dict to a `RunConfig`."""
    values = dict(raw)
    algorithm = values.get("algorithm") or {}
    if isinstance(algorithm, Mapping):
        cls = algorithm_class(str(algorithm.get("name", "ppo")))
        values["algorithm"] = validated(cls, algorithm, source, "algorithm.")
    sampler = values.get("sampler")
    if isinstance(sampler, Mapping) and isinstance(sampler.get("options"), Mapping):
        options = {key: _option(value) for key, value in sampler["options"].items()}
        values["sampler"] = {**sampler, "options": options}
    return validated(RunConfig, values, source, "")


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
                if not (name.endswith(_SEVERAL) and _is_number(words[0])):
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
    raw = read_yaml(path) if path is not None else {}
    refuse_other_kinds(raw, path, "finetune")
    raw.setdefault("name", "finetune" if path is None else Path(path).stem)
    for dotted, value in parse_flags(flags, official={}):
        set_field(raw, dotted, value)
    return parse_finetune(raw, source=str(path or "flags"))


def parse_finetune(raw: Mapping[str, Any], *, source: str = "config") -> FinetuneConfig:
    """A nested dict to a `FinetuneConfig`."""
    return validated(FinetuneConfig, raw, source, "")


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


def swap_parts(raw: dict[str, Any], chosen: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Leave out the file's fields that another algorithm or sampler does not have.

    Args:
        chosen: dotted fields that are about to be set; the two names are looked at.

    Returns:
        (branch, its new name, the fields that were left out), where there are any.
    """
    found = []
    for branch, missing in (("algorithm", _missing_fields), ("sampler", _own_options)):
        name, old = chosen.get(f"{branch}.name"), raw.get(branch)
        if name is None or not isinstance(old, dict):
            continue
        gone = missing(str(old.get("name", "")), str(name))
        left_out = [key for key in old if key in gone]  # what neither knows is refused later
        raw[branch] = {key: value for key, value in old.items() if key not in gone}
        if left_out:
            found.append((branch, str(name), left_out))
    return found


def _missing_fields(old: str, new: str) -> set[str]:
    """Fields of one algorithm that another does not have."""
    before, after = ({f.name for f in fields(algorithm_class(n))} for n in (old or "ppo", new))
    return before - after


def _own_options(old: str, new: str) -> set[str]:
    """Options are the arguments of one sampler."""
    return {"options"} if old != new else set()


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
    """What was typed behind a flag; pairs of numbers become lists."""
    is_pair = dotted.split(".")[-1] == "betas" and (" " in text or "," in text)
    return text.replace(",", " ").split() if is_pair else text


def validated(cls: type[Any], values: Mapping[str, Any], source: str, prefix: str = "") -> Any:
    """A nested dict to a dataclass; `prefix` stands before the fields in messages."""
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error, cls, prefix)}") from None


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


def field_docstrings(cls: type[Any]) -> dict[str, str]:
    """Field docstrings, base classes first: Python itself does not keep them."""
    import ast
    import inspect
    import textwrap

    found: dict[str, str] = {}
    for owner in reversed([c for c in cls.__mro__ if is_dataclass(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[node.target.id] = " ".join(str(after.value.value).split())
    return found
