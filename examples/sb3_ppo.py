"""PPO of Stable-Baselines3 on token selection, against random choice on the same clips.

python examples/sb3_ppo.py [--steps 40960]
"""

import argparse

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

ID = "tats_ray:TATS/TokenSelection-v0"
NUM_CLIPS = 256


def returns(choose) -> np.ndarray:
    """The reward on every clip of the environment, in one step."""
    env = gymnasium.make_vec(ID, num_envs=NUM_CLIPS, autoreset=False)
    observation, _ = env.reset(seed=0, options={"clip_idx": np.arange(NUM_CLIPS)})
    _, reward, *_ = env.step(choose(observation))
    return reward


def line(name: str, reward: np.ndarray) -> str:
    return f"{name:<6} {reward.mean():+.4f} +- {reward.std() / len(reward) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40_960, help="episodes to train on")
    steps = parser.parse_args().steps
    agent = PPO(
        "MlpPolicy",
        make_vec_env(ID, n_envs=8, seed=0),
        n_steps=64,
        batch_size=128,
        n_epochs=4,
        learning_rate=1e-3,
        gamma=0.0,  # episodes of one step
        policy_kwargs={"log_std_init": -1.0},  # fewer scores are cut off at the box's edge
        seed=0,
        device="cpu",
    )
    agent.learn(steps)
    random = np.random.default_rng(0)
    print("error reduction, mean over clips +- standard error")
    print(line("random", returns(lambda seen: random.uniform(-1, 1, (len(seen), 144)))))
    print(line("PPO", returns(lambda seen: agent.predict(seen, deterministic=True)[0])))


if __name__ == "__main__":
    main()
