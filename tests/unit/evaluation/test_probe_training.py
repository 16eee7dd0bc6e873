"""Heads in one pass: each as if alone, each as torch itself would train it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tats_ray.core.errors import NonFiniteError, UsageError
from tats_ray.core.seeds import stream
from tats_ray.evaluation import probe_training as probes
from tats_ray.evaluation.probe_choice import HeadTrial, best, hold_out, try_all
from tats_ray.evaluation.probe_protocols import RECIPES, ProbeRecipe, recipe
from tats_ray.evaluation.probe_training import Examples, Probe
from tats_ray.ops.stacked import StackedSGD

WIDTH, CLASSES = 8, 3


def examples(count: int = 30, *, tokens: int = 0, views: int = 2, shift: float = 3.0) -> Examples:
    """Features that shift with the class along an axis of their own."""
    generator = stream(0, "examples", count, tokens)
    shape = (count, views, *([tokens] if tokens else []), WIDTH)
    features = torch.randn(shape, generator=generator)
    labels = torch.arange(count) % CLASSES
    for label in range(CLASSES):
        features[labels == label, ..., label] += shift
    return Examples(features, labels)


def short(name: str) -> ProbeRecipe:
    return replace(RECIPES[name], epochs=4, warmup_epochs=1, batch_size=8)


def make(plan: ProbeRecipe, grid: list[tuple[float, float]] | None = None, seed: int = 0) -> Probe:
    return Probe(plan, grid or plan.grid, width=WIDTH, num_heads=2, num_classes=CLASSES, seed=seed)


@pytest.mark.parametrize("name", RECIPES)
def test_every_head_of_a_grid_becomes_what_it_becomes_alone(name: str) -> None:
    plan = replace(short(name), base_lrs=(1e-2, 1.0), weight_decays=(0.0, 0.1))
    train = examples(tokens=5 if name == "attentive" else 0)
    together = make(plan)
    together.fit(train)
    scores = together.scores(train.features)
    for pair, own in zip(plan.grid, scores, strict=True):
        alone = make(plan, [pair])
        alone.fit(train)
        torch.testing.assert_close(alone.scores(train.features)[0], own, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores[0], scores[-1], atol=1e-2)


def test_linear_probe_is_torchs_batch_norm_linear_and_sgd() -> None:
    """The same thirty steps, written with torch's own parts."""
    plan = replace(short("linear"), epochs=10, base_lrs=(8.0,), weight_decays=(0.01,))
    train = examples(views=1)
    probe = make(plan)
    (head,) = probe.heads
    peer = nn.Sequential(nn.BatchNorm1d(WIDTH, eps=1e-6, affine=False), head)
    assert isinstance(head, nn.Linear)
    groups = [
        {"params": [head.weight], "weight_decay": 0.01},
        {"params": [head.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    total, step = 10 * 4, 0
    for epoch in range(10):
        order = torch.randperm(30, generator=stream(0, "probe", epoch))
        for part in order.tensor_split(4):
            step += 1
            rising = step / 4
            falling = 0.5 * (1 + torch.tensor(torch.pi * (step - 4) / (total + 1 - 4)).cos())
            for group in optimizer.param_groups:
                group["lr"] = 8.0 * 8 / 256 * float(rising if step < 4 else falling)
            optimizer.zero_grad()
            cross_entropy(peer(train.features[part, 0]), train.labels[part]).backward()
            optimizer.step()
    probe.fit(train)
    expected = peer.eval()(train.features[:, 0]).softmax(1).double()
    scores = probe.scores(train.features)[0, :, 0]
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert (expected.argmax(1) == train.labels).double().mean() > 0.8


@pytest.mark.parametrize("name", RECIPES)
def test_what_can_be_separated_is(name: str) -> None:
    plan = replace(RECIPES[name], epochs=40, batch_size=16)
    tokens = 5 if name == "attentive" else 0
    probe = make(plan)
    trials = try_all(probe, examples(tokens=tokens), examples(60, tokens=tokens, shift=3.5))
    assert best(trials).top1 > 0.9
    assert [(trial.base_lr, trial.weight_decay) for trial in trials] == plan.grid


def test_seed_decides_everything() -> None:
    train = examples()
    scores = []
    for seed in (0, 0, 1):
        probe = make(short("linear"), seed=seed)
        torch.rand(3)  # the global stream has no say
        probe.fit(train)
        scores.append(probe.scores(train.features))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_scores_are_the_softmax_of_each_view_and_ignore_neighbours() -> None:
    train = examples()
    probe = make(short("linear"))
    probe.fit(train)
    scores = probe.scores(train.features)
    head = list(probe.heads)[4]
    logits = head(probe.norm(train.features[7])).detach()
    torch.testing.assert_close(scores[4, 7], logits.softmax(1).double())
    for size in (1, 4, 30):
        parts = [probe.scores(part) for part in train.features.split(size)]
        assert torch.equal(torch.cat(parts, dim=1), scores)


def test_no_batch_is_a_single_video() -> None:
    """A batch norm cannot learn from one; 9 videos in batches of 8 are 5 and 4."""
    probe = make(short("linear"))
    probe.fit(examples(9))
    assert torch.isfinite(probe.scores(examples(9).features)).all()


def test_diverging_heads_leave_the_others_alone_and_are_not_chosen() -> None:
    plan = replace(short("ft-like"), base_lrs=(1e-2, 1e38), weight_decays=(0.0,), epochs=10)
    train = examples()
    trials = try_all(make(plan), train, train)
    assert best(trials).base_lr == 1e-2
    alone = make(plan, [plan.grid[0]])
    assert try_all(alone, train, train)[0].loss == pytest.approx(trials[0].loss, rel=1e-3)


def test_a_grid_that_diverges_as_a_whole_is_an_error() -> None:
    plan = replace(short("ft-like"), base_lrs=(1e38,), weight_decays=(0.0,), epochs=30)
    train = examples()
    with pytest.raises(NonFiniteError, match="lower learning rates"):
        best(try_all(make(plan), train, train))


def test_lars_begins_at_the_batch_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Spy(StackedSGD):
        def __init__(self, *args: object, trust: float) -> None:
            seen.append(trust)
            super().__init__(*args, trust=trust)  # type: ignore[arg-type]

    monkeypatch.setattr(probes, "StackedSGD", Spy)
    assert probes.LARS_BATCH == 4096
    monkeypatch.setattr(probes, "LARS_BATCH", 30)
    for size in (30, 29):
        make(replace(short("linear"), batch_size=size)).fit(examples())
    assert seen == [0.001, 0.0]


def test_learning_rate_scales_with_the_batch_that_is_really_taken() -> None:
    """30 videos in batches of up to 256 are one batch of 30."""
    plan = replace(short("linear"), batch_size=256, epochs=1, warmup_epochs=0, base_lrs=(1.0,))
    train = examples(views=1)
    probe = make(plan, [(1.0, 0.0)])
    (head,) = probe.heads
    assert isinstance(head, nn.Linear)
    before = head.weight.detach().clone()
    norm = nn.BatchNorm1d(WIDTH, eps=1e-6, affine=False)
    cross_entropy(head(norm(train.features[:, 0])), train.labels).backward()
    probe.fit(train)
    (after,) = probe.heads
    assert isinstance(after, nn.Linear)
    assert head.weight.grad is not None
    # The only step of the only epoch is half way down the cosine.
    step = before - 0.5 * 30 / 256 * head.weight.grad
    torch.testing.assert_close(after.weight, nn.Parameter(step), rtol=1e-4, atol=1e-6)


def test_a_fifth_of_each_class_is_held_out_and_none_of_a_lone_video() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2 + [3])
    rest, held = hold_out(labels, seed=0)
    assert labels[held].bincount(minlength=4).tolist() == [2, 1, 1, 0]
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(18))
    again = hold_out(labels, seed=1)[1]
    assert held.tolist() != again.tolist()
    with pytest.raises(UsageError, match="one learning rate"):
        hold_out(torch.arange(4), seed=0)


def test_best_is_by_accuracy_then_loss_then_place() -> None:
    trials = [
        HeadTrial(0.1, 0.0, 0.5, 0.1),
        HeadTrial(0.2, 0.0, 0.6, 0.9),
        HeadTrial(0.3, 0.0, 0.6, 0.8),
        HeadTrial(0.4, 0.0, 0.6, 0.8),
        HeadTrial(0.5, 0.0, 0.9, float("nan")),
    ]
    assert best(trials).base_lr == 0.3
    with pytest.raises(NonFiniteError):
        best(trials[-1:])


def test_recipes_hold_the_protocols_values() -> None:
    assert (0.1, 0.0) in RECIPES["linear"].grid
    assert (RECIPES["linear"].epochs, RECIPES["linear"].warmup_epochs) == (100, 10)
    assert (1e-3, 0.05) in RECIPES["ft-like"].grid
    assert len(RECIPES["attentive"].grid) == 20
    assert recipe("linear", lrs=(0.5,), epochs=3).grid == [(0.5, d) for d in (0.0, 1e-4, 1e-2)]
    with pytest.raises(UsageError, match="for the linear probe"):
        recipe("attentive", preset="ft-like")


@pytest.mark.parametrize(
    "wrong", [{"base_lrs": (0.0,)}, {"weight_decays": (-1.0,)}, {"epochs": -1}, {"batch_size": 1}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="must be"):
        replace(RECIPES["linear"], **wrong)  # type: ignore[arg-type]
