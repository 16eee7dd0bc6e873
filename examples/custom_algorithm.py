"""An algorithm of your own in 40 lines, trained through the whole Ray loop.

Advantage-weighted regression [Peng et al. 2019]: weights exp(error / temperature) on hidden tokens.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.ops.selection import entropy, is_visible


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressionConfig(AlgorithmConfig):
    """Fields are checked, and can be set as --algorithm.NAME like all others."""

    name: str = "custom_algorithm:RegressionConfig"
    temperature: float = 0.1
    entropy_coef: float = 0.01

    def build(self, policy):
        return Regression(self, policy)


class Regression(PolicyGradient):
    def __init__(self, config, policy):
        super().__init__(config, policy)
        self.config = config

    def loss(self, rollout, now):
        visible = is_visible(rollout.visible_idx, rollout.log_prob.shape[1])
        wish = (rollout.reward / self.config.temperature).masked_fill(visible, -torch.inf)
        fit = (wish.softmax(1) * now.log_prob).sum(1).mean()
        loss = -fit - self.config.entropy_coef * entropy(now.log_prob).mean()
        return loss, {"surrogate": fit.item()}


if __name__ == "__main__":
    from tats_ray.config.load import parse_config
    from tats_ray.data.synthetic import synthesize
    from tats_ray.runs.pretrain_run import pretrain

    folder = Path(tempfile.mkdtemp())
    videos = synthesize(folder / "videos", num_train=16, num_val=4, num_frames=10, size=32)
    data = {"train_list": str(videos.train_list)}
    raw = {
        "name": "custom",
        "algorithm": {"name": "custom_algorithm:RegressionConfig", "lr": 1e-3},
        "data": {**data, "num_frames": 4, "image_size": 32, "num_workers": 0},
        "model": {"size": "tiny", "patch": 8},
        "loop": {"epochs": 3, "mae_only_epochs": 1},
        "optim": {"batch_size": 8, "warmup_epochs": 1},
        "checkpoint": {"folder": str(folder)},
    }
    print(pretrain(parse_config(raw)).report)
