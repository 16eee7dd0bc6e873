"""PPO of RLlib (new API stack) on token selection. `make test-rllib` runs it.

python examples/rllib_ppo.py [--steps 20]
"""

import argparse

import gymnasium
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env


def make(config):
    # RLlib's workers are processes of their own; naming the module registers the id in each.
    return gymnasium.make("tats_ray:TATS/TokenSelection-v0", **config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="iterations of 512 episodes each")
    steps = parser.parse_args().steps
    ray.init(num_cpus=2, include_dashboard=False)
    register_env("token_selection", make)
    config = (
        PPOConfig()
        .environment("token_selection")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=512, minibatch_size=128, num_epochs=4, lr=1e-3, gamma=0.0
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[128], vf_share_layers=False))
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    for step in range(steps):
        result = algorithm.train()
        print(
            f"iteration {step}: error reduction {result['env_runners']['episode_return_mean']:+.4f}"
        )
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
