"""The same budget over several rounds, each of which sees where the last one left errors."""

from __future__ import annotations

from typing import Any

from tats_ray.envs.token_selection import TokenSelectionVectorEnv


class SequentialTokenSelectionVectorEnv(TokenSelectionVectorEnv):
    """As `TokenSelectionVectorEnv`, in `num_rounds` steps of `num_visible / num_rounds` tokens.

    * State: also which tokens are visible, and the error of each token in the last round.
    * Action: for this round's tokens; one that is visible already cannot be chosen again.
    * Reward: what the round adds to the value of the selection so far, where the value before the
      first round is 0. So an episode's rewards sum to what the one-shot task would have given for
      the whole selection.
    * Episode: `num_rounds` steps.

    Version History:
        v0: equal rounds.
    """

    def __init__(self, num_envs: int = 1, *, num_rounds: int = 4, **options: Any) -> None:
        super().__init__(num_envs, num_rounds=num_rounds, **options)
