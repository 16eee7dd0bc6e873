"""Samplers from another package: what is accepted, what it draws, and what is refused."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.config.load import parse_config
from tats_ray.config.plugins import SAMPLERS
from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.errors import NonFiniteError, UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.models.policy import is_learned
from tats_ray.models.samplers.dry_run import check_sampler
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.models.zoo import build_learned_policy, build_policy, num_visible

GRID = TokenGrid(num_frames=4, image_size=16, patch=4)  # 2 x 4 x 4 = 32 tokens
TINY = ModelConfig(size="tiny", patch=4)

PLUG_IN = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width, grid, *, scale: float = 1.0, twice=False):
        super().__init__()
        self.out = nn.Linear(width, 1)
        self.scale, self.twice = scale, twice

    def forward(self, tokens):
        return self.scale * self.out(tokens).squeeze(-1)


class OneTooMany(Net):
    def forward(self, tokens):
        return self.out(tokens)


class Nan(Net):
    def forward(self, tokens):
        return super().forward(tokens) * torch.nan


class Detached(Net):
    def forward(self, tokens):
        return super().forward(tokens).detach()


class Frozen(Net):
    def __init__(self, width, grid):
        super().__init__(width, grid)
        self.requires_grad_(False)


class Empty(nn.Module):
    def __init__(self, width, grid):
        super().__init__()

    def forward(self, tokens):
        return tokens.mean(-1)


class Raises(Net):
    def forward(self, tokens):
        raise RuntimeError("two\\nlines")


class WillNotBuild(nn.Module):
    def __init__(self, width, grid):
        raise ValueError(f"no width of {width}")


INSTANCE = Net(4, None)
NUMBER = 3


def first(grid, num_clips, num_visible, generator):
    return torch.arange(num_visible).expand(num_clips, -1)


def rolled(grid, num_clips, num_visible, generator, *, shift=0):
    return (torch.arange(num_visible).expand(num_clips, -1) + shift) % grid.num_tokens


def one_less(grid, num_clips, num_visible, generator):
    return torch.arange(num_visible - 1).expand(num_clips, -1)


def again(grid, num_clips, num_visible, generator):
    return torch.zeros(num_clips, num_visible, dtype=torch.int64)


def beyond(grid, num_clips, num_visible, generator):
    return torch.arange(num_visible).expand(num_clips, -1) + grid.num_tokens - 1


def floats(grid, num_clips, num_visible, generator):
    return torch.rand(num_clips, num_visible, generator=generator)


def listed(grid, num_clips, num_visible, generator):
    return [[0] * num_visible] * num_clips


class Corner:
    """Whole columns of the top row."""

    def __init__(self, columns=1):
        self.columns = columns

    def num_visible(self, ratio, grid):
        return self.columns * grid.time

    def __call__(self, grid, num_clips, num_visible, generator):
        columns = torch.arange(num_visible // grid.time)
        slots = torch.arange(grid.time) * grid.tokens_per_slot
        return (slots[:, None] + columns).flatten().expand(num_clips, -1)


class Everything(Corner):
    def num_visible(self, ratio, grid):
        return grid.num_tokens


class Half(Corner):
    def num_visible(self, ratio, grid):
        return 0.5


class NoCall:
    pass


class WidthOnly(Net):
    def __init__(self, width):
        super().__init__(width, None)


class NeedsMore(Net):
    def __init__(self, width, grid, *, depth):
        super().__init__(width, grid)


def three(grid, num_clips, num_visible):
    return torch.arange(num_visible).expand(num_clips, -1)


class CalledWithTwo(Corner):
    def __call__(self, grid, num_clips):
        return torch.zeros(num_clips, 2)
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sampler_plug_in.py").write_text(PLUG_IN)
    (tmp_path / "sampler_that_needs_more.py").write_text("import no_such_dependency")
    (tmp_path / "sampler_that_divides.py").write_text("\n1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


def named(name: str, **fields: Any) -> SamplerConfig:
    return SamplerConfig(name=f"sampler_plug_in:{name}", **fields)


def drawn(config: SamplerConfig) -> list[int]:
    policy = build_policy(config, TINY, GRID, seed=0)
    tokens = torch.zeros(2, GRID.num_tokens, 128)
    count = num_visible(config, GRID)
    return policy.act(tokens, count, generator=torch.Generator()).visible_idx[1].tolist()


def test_registry_says_of_every_sampler_of_this_package_what_the_method_does() -> None:
    entries = {name: find_sampler(SamplerConfig(name=name)) for name in SAMPLERS}
    assert {name for name, entry in entries.items() if entry.learns} == {"tats", "adamae"}
    assert {name for name, entry in entries.items() if entry.needs_motion} == {"oracle"}
    counts = {name: entry.num_visible(0.9, TokenGrid()) for name, entry in entries.items()}
    assert counts == dict.fromkeys(SAMPLERS, 156) | {"tube": 160, "frame": 196}


@pytest.mark.parametrize("name", SAMPLERS)
def test_policy_learns_exactly_where_the_registry_says_so(name: str) -> None:
    config = SamplerConfig(name=name)
    assert is_learned(build_policy(config, TINY, GRID, seed=0)) == find_sampler(config).learns
    check_sampler(config, TINY, GRID, seed=0)


def test_network_of_another_package_becomes_a_policy_with_its_temperature() -> None:
    config = named("Net", temperature=0.5)
    check_sampler(config, TINY, GRID, seed=0)
    assert find_sampler(config).learns
    policy = build_learned_policy(config, TINY, GRID, seed=0)
    tokens = torch.randn(2, 32, 128, generator=torch.Generator().manual_seed(1))
    out = policy.sampler.out
    expected = (2 * (tokens @ out.weight[0] + out.bias)).log_softmax(1)
    torch.testing.assert_close(policy.evaluate(tokens).log_prob, expected)


def test_same_seed_gives_a_network_of_another_package_the_same_weights() -> None:
    first, again, other = (
        build_learned_policy(named("Net"), TINY, GRID, seed=seed).sampler.out.weight
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_options_from_a_file_reach_the_sampler_as_numbers() -> None:
    options = {"scale": "1e-3", "twice": "true"}  # YAML takes 1e-3 for text, and flags are text
    config = parse_config({"sampler": {"name": "sampler_plug_in:Net", "options": options}})
    network = build_learned_policy(config.sampler, TINY, GRID, seed=0).sampler
    assert (network.scale, network.twice) == (0.001, True)
    assert drawn(named("rolled", options={"shift": 2}, mask_ratio=0.9)) == [2, 3, 4]


def test_function_draws_as_a_rule_and_learns_nothing() -> None:
    config = named("first", mask_ratio=0.9)
    check_sampler(config, TINY, GRID, seed=0)
    assert not find_sampler(config).learns
    assert drawn(config) == [0, 1, 2]


def test_class_of_a_rule_says_how_many_tokens_it_shows() -> None:
    config = named("Corner", options={"columns": 3})
    check_sampler(config, TINY, GRID, seed=0)
    assert num_visible(config, GRID) == 6
    assert drawn(config) == [0, 1, 2, 16, 17, 18]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("OneTooMany", r"returned float32 of shape \(2, 32, 1\) .* floats of shape \(2, 32\)"),
        ("Nan", r"returned NaN or infinite logits for random tokens; return finite ones"),
        ("Detached", r"logits without a gradient, so it cannot learn; do not detach"),
        ("Empty", r"so it learns, but it has no parameters to train; give it some"),
        ("Frozen", r"so it learns, but all of its parameters are frozen; set requires_grad of"),
        ("Raises", r"fails on random tokens: RuntimeError: two lines \(.*_plug_in\.py, line 47\)$"),
        ("WillNotBuild", r"cannot be built: ValueError: no width of 128 \(.*in\.py, line 52\)$"),
        (
            "WidthOnly",
            r"takes \(width\), but a run gives it \(width, grid, \*\*sampler\.options\): ",
        ),
        ("NeedsMore", r"takes .*, but a run gives it \(width, grid, .*: missing .* 'depth'$"),
        ("three", r"takes .*, but a run gives it \(grid, num_clips, num_visible, generator, \*\*s"),
        ("CalledWithTwo", r"takes .*, but a run gives it \(grid, num_clips, num_visible, gen"),
        ("INSTANCE", r"draws no masks; name a class of torch\.nn\.Module"),
        ("NUMBER", r"draws no masks; name a class of torch\.nn\.Module"),
        (
            "Nett",
            r"module 'sampler_plug_in' has no attribute 'Nett'; did you mean .*_plug_in:Net\?$",
        ),
        ("", r"module 'sampler_plug_in' has no attribute ''; it defines Net, OneTooMany, Nan, "),
        ("one_less", r"drew int64 of shape \(2, 2\); return the indices of the 3 visible tokens"),
        ("again", r"drew 2 of 3 tokens twice in a clip; draw each at most once"),
        ("beyond", r"drew token 33; a clip has the tokens 0 to 31"),
        ("floats", r"drew float32 of shape \(2, 3\); return the indices .*, int64 of shape"),
        ("listed", r"drew a list; return the indices of the 3 visible tokens"),
        ("Everything", r"num_visible\(0\.9, grid\) is 32; return a whole number from 1 to 31"),
        ("Half", r"num_visible\(0\.9, grid\) is 0\.5; return a whole number from 1 to 31"),
        ("NoCall", r"draws no masks; name .*, or a class whose objects can be called to draw"),
    ],
)
def test_what_cannot_train_is_refused_in_one_line_that_names_it(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        check_sampler(named(name), TINY, GRID, seed=0)
    assert "\n" not in str(refused.value)
    assert f"sampler_plug_in:{name}" in str(refused.value)


def test_rule_that_changes_its_number_later_is_refused_when_it_does() -> None:
    policy = build_policy(named("one_less"), TINY, GRID, seed=0)
    with pytest.raises(UsageError, match=r"drew \(2, 2\) \(clips, tokens\) where \(2, 3\)"):
        policy.act(torch.zeros(2, 32, 128), 3, generator=torch.Generator())


def test_network_that_diverges_later_is_an_error_when_it_does() -> None:
    policy = build_learned_policy(named("Net"), TINY, GRID, seed=0)
    torch.nn.init.constant_(policy.sampler.out.bias, torch.nan)
    with pytest.raises(NonFiniteError, match=r"non-finite logits for clips \[0, 1\]"):
        policy.evaluate(torch.zeros(2, 32, 128))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"options": {"skale": 2}}, r"options\.skale is not an argument .*; did you mean scale\?"),
        ({"options": {"width": 2}}, r"options\.width is not an argument .*known: scale, twice"),
        ({"value_shares_trunk": True}, r"value_shares_trunk needs .* Net lacks them; use false"),
    ],
)
def test_settings_that_a_network_does_not_take_are_refused(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        check_sampler(named("Net", **fields), TINY, GRID, seed=0)


def test_option_that_a_function_does_not_take_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"options\.shif is not an argument .*; did you mean shift\?"
    ):
        check_sampler(named("rolled", options={"shif": 1}), TINY, GRID, seed=0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("adamea", r"sampler\.name 'adamea' is not known; did you mean adamae\?; known: tats, "),
        ("x" * 8, r"'xxxxxxxx' is not known; known: tats, .*, or module:Class"),
        (
            "sampler_plug_in",
            r"is not known; did you mean sampler_plug_in:Class, with the name of a",
        ),
        ("no.such.module", r"'no\.such\.module' is not known; known: tats"),
    ],
)
def test_unknown_name_is_refused_where_it_is_read(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_config({"sampler": {"name": name}})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:Net", r"No module named 'no_such_module'; add its folder to PYTHONPATH$"),
        (
            "sampler_that_needs_more:Net",
            r"ModuleNotFoundError: No module named 'no_such_dependency' \(.*more\.py, line 1\)$",
        ),
        ("sampler_that_divides:Net", r"ZeroDivisionError: division by zero \(.*des\.py, line 2\)$"),
    ],
)
def test_module_that_cannot_be_imported_is_named(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=rf"sampler\.name '{name}' cannot be loaded: {says}"):
        find_sampler(SamplerConfig(name=name))


def test_options_of_a_sampler_of_this_package_are_refused() -> None:
    with pytest.raises(UsageError, match=r"sampler\.options must be empty for sampler tube"):
        parse_config({"sampler": {"name": "tube", "options": {"hidden": 1}}})
