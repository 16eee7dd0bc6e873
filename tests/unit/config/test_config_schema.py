"""The declarations: documented to the last field, frozen, and with bounds."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from typing import Annotated, Any

import pytest

import tats_ray.algorithms.ppo
import tats_ray.algorithms.reinforce
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.config.finetune_schema import AugmentConfig, EncoderConfig, FinetuneOptimConfig
from tats_ray.config.load import field_docs, parse_config
from tats_ray.config.schema import AlgorithmConfig, DataConfig, LoopConfig, RunConfig, SamplerConfig
from tats_ray.config.sweep_schema import SweepConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import ConfigBase
from tats_ray.core.ranges import Range


def configurations() -> list[type[Any]]:
    """Every configuration class of the library."""
    found, waiting = [], [ConfigBase]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        found += [cls for cls in children if cls.__module__.startswith("tats_ray.")]
    # `slots=True` makes a second class of the same name; the one in the module is the true one.
    return [cls for cls in found if getattr(inspect.getmodule(cls), cls.__name__) is cls]


def documented(cls: type[Any]) -> set[str]:
    """Fields of `cls` that are followed by a docstring, there or in a base."""
    names: set[str] = set()
    for owner in cls.__mro__:
        if not is_dataclass(owner):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
                names.add(ast.unparse(node.target))
    return names


@pytest.mark.parametrize("cls", configurations(), ids=lambda cls: cls.__name__)
def test_every_field_of_every_configuration_has_a_docstring_that_ends_like_a_sentence(
    cls: type[Any],
) -> None:
    assert cls.__doc__
    names = {f.name for f in fields(cls) if not is_dataclass(f.default_factory)}
    assert names - documented(cls) == set()


def test_help_has_every_field_once_with_its_text_and_default() -> None:
    rows = field_docs()
    names = [dotted for dotted, _, _ in rows]
    assert len(names) == len(set(names)) > 60
    assert [dotted for dotted, text, _ in rows if not text.strip()] == []
    assert [text for _, text, _ in rows if not text.isascii() or "\n" in text] == []
    defaults = {dotted: default for dotted, _, default in rows}
    assert defaults["sampler.mask_ratio"] == 0.9
    assert defaults["algorithm.clip_eps"] == 0.2
    assert any("m_o" in text for dotted, text, _ in rows if dotted == "loop.mae_only_epochs")


def test_configuration_is_read_only_to_the_last_branch() -> None:
    config = parse_config({})
    for owner in (config, *(getattr(config, f.name) for f in fields(config))):
        if is_dataclass(owner):
            name = fields(owner)[0].name
            with pytest.raises(FrozenInstanceError):
                setattr(owner, name, getattr(owner, name))
            with pytest.raises((AttributeError, TypeError)):
                owner.new_field = 1  # type: ignore[union-attr]


BAD_VALUES: dict[str, list[Any]] = {
    "data.stride": [0],
    "data.num_workers": [-1],
    "data.cache_mb": [-1],
    "data.max_bad_share": [-0.1, 1.5],
    "model.depth": [-1],
    "model.decoder_depth": [-1],
    "sampler.mask_ratio": [0.0, 1.0, -0.5],
    "sampler.num_blocks": [0],
    "sampler.num_heads": [-1],
    "sampler.temperature": [0.0, -1.0],
    "sampler.uniform_share": [-0.1, 1.0],
    "algorithm.lr": [0.0, -1e-3],
    "algorithm.clip_eps": [0.0, 1.0],
    "algorithm.update_steps": [0],
    "algorithm.sharpness": [0.0, -1.0],
    "algorithm.target_entropy": [-0.1, 1.0],
    "loop.epochs": [0],
    "loop.mae_only_epochs": [-1],
    "loop.ramp_in_epochs": [-1],
    "loop.ramp_out_epochs": [-1],
    "loop.mae_steps_per_update": [0],
    "loop.rollout_fraction": [0.0, 1.5],
    "optim.batch_size": [0],
    "optim.base_lr": [0.0],
    "optim.min_lr": [-1e-6],
    "optim.warmup_epochs": [-1.0],
    "optim.clip_grad": [-1.0],  # it would turn every gradient round
    "eval.every_epochs": [-1],
    "eval.num_clips": [0],
    "checkpoint.every_epochs": [0],
    "checkpoint.keep_last": [0],
    "checkpoint.retry_s": [-1.0],
    "log.every_steps": [0],
    "cluster.num_workers": [0],
    "cluster.min_workers": [-1, 2],  # more than cluster.num_workers
    "cluster.timeout_s": [0.0],
    "cluster.buffer_mb": [0],
}


@pytest.mark.parametrize(
    ("dotted", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values]
)
def test_value_out_of_bounds_is_refused_by_field_rule_and_value(dotted: str, value: Any) -> None:
    branch, name = dotted.split(".")
    with pytest.raises(UsageError, match=rf"^config: {dotted} must be .+, got {value}$"):
        parse_config({branch: {name: value}})


@pytest.mark.parametrize("dotted", list(BAD_VALUES))
def test_default_of_every_bounded_field_is_within_its_bounds(dotted: str) -> None:
    branch, name = dotted.split(".")
    default = {row: value for row, _, value in field_docs()}[dotted]
    again = parse_config({branch: {name: default}})
    assert getattr(getattr(again, branch), name) == default


@pytest.mark.parametrize(
    ("cls", "settings", "says"),
    [
        (LoopConfig, {"epochs": 0}, "loop.epochs must be at least 1, got 0"),
        (EncoderConfig, {"patch": -1}, "model.patch must be 0 or more, got -1"),
        (
            FinetuneOptimConfig,
            {"drop_path": 1.0},
            r"optim.drop_path must be inside \[0, 1\), got 1.0",
        ),
        (AugmentConfig, {"rand_magnitude": 11}, r"rand_magnitude must be inside \[0, 10\], got 11"),
        (SweepConfig, {"base": "x.yaml", "reduction": 1}, "^reduction must be at least 2, got 1"),
        (SamplerConfig, {"temperature": float("nan")}, "temperature must be positive, got nan"),
        # Fields of a parent, in classes that also check fields against each other.
        (PPOConfig, {"lr": 0.0}, "algorithm.lr must be positive, got 0.0"),
        (ClusterConfig, {"num_workers": 0}, "cluster.num_workers must be at least 1, got 0"),
        (
            DataConfig,
            {"reader": "ray", "num_workers": 0},
            "data.num_workers must be above 0 with data.reader ray, got 0",
        ),
    ],
)
def test_value_out_of_bounds_is_refused_in_python_too(
    cls: type[Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=f"{says}$"):
        cls(**settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginConfig(AlgorithmConfig):
    """Of another package, with a range of its own."""

    keep: Annotated[int, Range("odd", lambda value: value % 2 == 1)] = 3


def test_range_of_a_plug_ins_field_is_checked_from_a_file_and_in_python() -> None:
    says = "algorithm.keep must be odd, got 2"
    with pytest.raises(UsageError, match=f"^{says}$"):
        PluginConfig(keep=2)
    name = f"{__name__}:PluginConfig"
    with pytest.raises(UsageError, match=f"^config: {says}$"):
        parse_config({"algorithm": {"name": name, "keep": "2"}})
    assert parse_config({"algorithm": {"name": name, "keep": "5"}}).algorithm == PluginConfig(
        name=name, keep=5
    )


def test_algorithm_without_a_name_builds_nothing_and_says_which_do() -> None:
    with pytest.raises(UsageError, match="builds no algorithm; use ppo"):
        AlgorithmConfig().build(None)


def test_configurations_are_values() -> None:
    assert parse_config({"seed": 1}) == parse_config({"seed": 1}) != parse_config({"seed": 2})
    assert isinstance(hash(RunConfig()), int)
    assert tats_ray.algorithms.ppo.PPOConfig() != tats_ray.algorithms.ppo.PPOConfig(lr=1.0)
