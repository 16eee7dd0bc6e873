"""The learner and the loop of fine-tuning, in one process, on clips made here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.fine_tuned import PART, read_fine_tuned
from tats_ray.config.finetune_schema import FinetuneConfig, token_grid_of
from tats_ray.config.load import dump_config, parse_finetune, parse_yaml
from tats_ray.core.errors import CheckpointError, NonFiniteError, UsageError
from tats_ray.core.seeds import stream
from tats_ray.core.types import Position
from tats_ray.models.zoo import new_classifier
from tats_ray.training.finetune_loop import ClassifierLearner, FinetuneLoop
from tats_ray.training.finetune_state import load_state, save_state

STEPS = 4  # batches of an epoch


def small_config(**branches: dict[str, Any]) -> FinetuneConfig:
    raw: dict[str, Any] = {
        "name": "small",
        "data": {"num_frames": 4, "image_size": 16, "stride": 1, "num_classes": 3},
        "model": {"size": "tiny", "depth": 2, "patch": 8, "tubelet": 2, "pos_embed": "sincos_3d"},
        "optim": {"batch_size": 4, "epochs": 3, "base_lr": 0.5, "warmup_epochs": 1},
    }
    for branch, fields in branches.items():
        raw[branch] = {**raw.get(branch, {}), **fields}
    return parse_finetune(raw)


@dataclass(frozen=True)
class Batch:
    pixels: Tensor
    label: Tensor
    num_replaced: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)


def batches(epoch: int, first: int) -> Iterator[Batch]:
    for at in range(first, STEPS):
        drawn = stream(0, "batch", epoch, at)
        pixels = torch.randint(256, (4, 3, 4, 16, 16), generator=drawn, dtype=torch.uint8)
        yield Batch(pixels, torch.randint(3, (4,), generator=drawn))


class Run:
    """Learner and loop; its own hooks."""

    def __init__(self, config: FinetuneConfig) -> None:
        self.learner = ClassifierLearner(new_classifier(config), config, steps_per_epoch=STEPS)
        self.loop = FinetuneLoop(
            epochs=config.optim.epochs, batches=batches, learner=self.learner, hooks=self
        )
        self.after_batch: Callable[[], None] = lambda: None
        self.metrics: list[Mapping[str, float]] = []

    def on_batch(self, loop: FinetuneLoop, metrics: Mapping[str, float], batch: Any) -> None:
        self.metrics.append(metrics)
        self.after_batch()

    def on_epoch(self, loop: FinetuneLoop) -> None:
        pass


def equal(one: ClassifierLearner, other: ClassifierLearner) -> None:
    assert one.step == other.step
    for mine, theirs in ((one.network, other.network), (one.best, other.best)):
        left, right = mine.state_dict(), theirs.state_dict()
        assert [name for name in left if not torch.equal(left[name], right[name])] == []
    kept, again = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    for index, slots in kept.items():
        for slot, value in slots.items():
            assert torch.equal(value, again[index][slot])


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_run_continued_from_any_checkpoint_ends_as_the_run_that_never_stopped(
    ema_decay: float, tmp_path: Path
) -> None:
    """Drop path, mixing and the schedule go on where they stood, to the last bit."""
    config = small_config(optim={"ema_decay": ema_decay, "drop_path": 0.3})
    straight = Run(config)
    straight.loop.run()
    saving = Run(config)

    def save() -> None:
        at = saving.loop.at
        save_state(tmp_path / str(at.step), saving.learner, at, "name: small\n", keep_last=1)

    saving.after_batch = save
    saving.loop.run()
    for step in (1, 4, 7, 11):
        resumed = Run(config)
        found = checkpoints.load_parts(tmp_path / str(step))
        resumed.loop.at = load_state(resumed.learner, found)
        resumed.loop.run()
        equal(straight.learner, resumed.learner)
        assert resumed.loop.at == straight.loop.at
        # Straight from the first batch on, only fewer were done again.
        assert resumed.metrics == straight.metrics[step:]


def test_schedule_begins_at_0_has_its_peak_after_the_warm_up_and_ends_at_the_minimum() -> None:
    config = small_config(optim={"epochs": 100, "min_lr": 1e-6, "base_lr": 1e-3})
    learner = ClassifierLearner(new_classifier(config), config, steps_per_epoch=50, world_size=2)
    rates = []
    for learner.step in (0, 25, 50, 5000 - 1):
        rates.append(learner.lr)
    # 4 clips x 2 ranks.
    assert rates[:3] == pytest.approx([0.0, 0.5e-3 * 8 / 256, 1e-3 * 8 / 256])
    assert rates[3] == pytest.approx(1e-6 * 8 / 256, rel=1e-3)


def test_every_group_learns_at_its_layers_share_of_the_rate() -> None:
    config = small_config(optim={"layer_decay": 0.5, "warmup_epochs": 0})
    run = Run(config)
    before = {n: p.detach().clone() for n, p in run.learner.network.named_parameters()}
    rate = run.learner.lr
    run.learner.learn(*_clips(0))
    # Adam's first step has the length of its rate, whatever the gradient.
    for name, share in (
        ("encoder.patch_embed.proj.bias", 0.5**3),
        ("encoder.blocks.0.mlp.fc1.bias", 0.5**2),
        ("encoder.blocks.1.mlp.fc1.bias", 0.5),
        ("fc_norm.bias", 1.0),
        ("head.bias", 1.0),
    ):
        moved = (run.learner.network.get_parameter(name) - before[name]).abs()
        assert moved.max().item() == pytest.approx(rate * share, rel=1e-2), name


def _clips(at: int) -> tuple[Tensor, Tensor]:
    (batch,) = itertools.islice(batches(0, at), 1)
    return batch.pixels, batch.label


def test_loss_without_mixing_is_the_smoothed_cross_entropy() -> None:
    config = small_config(
        augment={"mix": 0.0, "label_smoothing": 0.2}, optim={"drop_path": 0.0, "head_scale": 1.0}
    )
    run = Run(config)
    clips, labels = _clips(1)
    expected = cross_entropy(run.learner.logits(clips), labels, label_smoothing=0.2)
    found = run.learner.learn(clips, labels)["finetune/loss"]
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_moving_average_is_what_its_recursion_says() -> None:
    run = Run(small_config(optim={"ema_decay": 0.75}))
    name = "head.weight"
    mean = run.learner.network.get_parameter(name).detach().clone()
    for at in range(3):
        run.learner.learn(*_clips(at))
        mean = 0.75 * mean + 0.25 * run.learner.network.get_parameter(name).detach()
    assert run.learner.average is not None
    torch.testing.assert_close(run.learner.average.get_parameter(name), mean)
    assert run.learner.best is run.learner.average


def test_a_few_clips_are_learned_by_heart() -> None:
    config = small_config(
        augment={"mix": 0.0, "label_smoothing": 0.0},
        optim={"epochs": 30, "base_lr": 0.2, "warmup_epochs": 1, "drop_path": 0.0},
    )
    run = Run(config)
    clips, labels = _clips(0)
    for _ in range(60):
        run.learner.learn(clips, labels)
    assert torch.equal(run.learner.logits(clips).argmax(1), labels)


def test_a_loss_that_is_not_finite_raises_and_changes_nothing() -> None:
    run = Run(small_config())
    with torch.no_grad():
        run.learner.network.head.bias.fill_(torch.nan)
    before = run.learner.network.encoder.patch_embed.proj.weight.detach().clone()
    with pytest.raises(NonFiniteError, match="the loss is nan at step 0"):
        run.learner.learn(*_clips(0))
    assert torch.equal(run.learner.network.encoder.patch_embed.proj.weight, before)


def test_fine_tuned_checkpoint_reads_back_and_does_not_pass_for_another(tmp_path: Path) -> None:
    config = small_config(optim={"ema_decay": 0.5})
    run = Run(config)
    run.loop.run()
    save_state(tmp_path, run.learner, run.loop.at, dump_config(config), keep_last=1)
    found = read_fine_tuned(tmp_path)
    assert found.config == config
    clips, _ = _clips(0)
    with torch.no_grad():
        torch.testing.assert_close(
            found.network(run.learner.pixels(clips)), run.learner.logits(clips)
        )
    with pytest.raises(CheckpointError, match="not a pre-training checkpoint"):
        checkpoints.load(tmp_path)
    text = dump_config(replace(config, data=replace(config.data, num_classes=7)))
    save_state(tmp_path / "other", run.learner, run.loop.at, text, keep_last=1)
    with pytest.raises(CheckpointError, match=r"head\.bias \(3,\) in the file, \(7,\)"):
        read_fine_tuned(tmp_path / "other")
    (found.folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml is not what was written"):
        read_fine_tuned(tmp_path)


def test_the_best_of_fine_tuning_is_kept_beside_the_newest(tmp_path: Path) -> None:
    config = small_config()
    learner = Run(config).learner
    for step, error in ((1, 0.5), (2, 0.25), (3, None), (4, 0.75)):
        save_state(
            tmp_path,
            learner,
            Position(step=step),
            dump_config(config),
            keep_last=1,
            validation_error=error,
        )
    assert read_fine_tuned(tmp_path).step == 4
    best = checkpoints.find(tmp_path / "checkpoints" / "best")
    assert read_fine_tuned(best).step == 2
    assert checkpoints.load_parts(best).validation_error == 0.25
    assert checkpoints.part_names(best) == {PART}
    assert len(list((tmp_path / "checkpoints").glob("step_*"))) == 2


def test_fine_tuning_is_not_sharded() -> None:
    with pytest.raises(UsageError, match=r"cluster\.sharding must be ddp: .* got 'fsdp'"):
        parse_finetune({"name": "sharded", "cluster": {"sharding": "fsdp"}})


def test_configuration_reads_back_and_names_what_is_wrong() -> None:
    config = small_config()
    assert parse_finetune(parse_yaml(dump_config(config), source="x")) == config
    assert token_grid_of(config).num_tokens == 8
    for branch, name, value, says in (
        ("optim", "batch_size", 3, "even, since clips are mixed in pairs"),
        ("optim", "layer_decay", 0, "inside (0, 1]"),
        ("augment", "flip", 2, "inside [0, 1]"),
        ("augment", "repeats", 3, None),
        ("augment", "mixupp", 1, "did you mean augment.mixup?"),
        ("cluster", "policy_gpus", 1, "fine-tuning has no policy"),
    ):
        with pytest.raises(ValueError, match=r".*") as told:
            small_config(**{branch: {name: value}})
        assert says is None or says in str(told.value)
