"""PPO of torchrl on token selection, from the environment's vector form.

python examples/torchrl_ppo.py [--steps 60]
"""

import argparse

import gymnasium
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.envs import GymWrapper
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help=f"updates, {BATCH} episodes each")
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    env = GymWrapper(gymnasium.make_vec("tats_ray:TATS/TokenSelection-v0", num_envs=BATCH))
    env.set_seed(0)
    num_inputs = env.observation_spec["observation"].shape[-1]
    num_tokens = env.action_spec.shape[-1]
    head = nn.Linear(128, 2 * num_tokens), NormalParamExtractor("biased_softplus_0.3")
    network = nn.Sequential(nn.Linear(num_inputs, 128), nn.Tanh(), *head)
    actor = ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )
    value = nn.Sequential(nn.Linear(num_inputs, 128), nn.Tanh(), nn.Linear(128, 1))
    critic = ValueOperator(value, in_keys=["observation"])
    loss = ClipPPOLoss(actor, critic, entropy_bonus=False, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    for step in range(steps):
        with torch.no_grad():
            rollout = env.rollout(1, actor).flatten(0, 1)
            # Episodes of one step: the return is the reward.
            rollout["value_target"] = rollout["next", "reward"]
            rollout["advantage"] = rollout["value_target"] - critic(rollout)["state_value"]
        for _ in range(4):
            parts = loss(rollout)
            optimizer.zero_grad()
            (parts["loss_objective"] + parts["loss_critic"]).backward()
            optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"update {step}: error reduction {rollout['next', 'reward'].mean():+.4f}")


if __name__ == "__main__":
    main()
