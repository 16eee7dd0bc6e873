"""`tats env card`: one page about an environment."""

from __future__ import annotations

import shutil
import textwrap

from tats_ray.envs.card import describe

_MARGIN = 16


def env_card(env_id: str) -> None:
    """Print what `tats_ray.envs.card.describe` finds.

    Raises:
        UsageError: for an environment that cannot be made.
    """
    width = min(shutil.get_terminal_size().columns, 100)
    for what, answer in describe(env_id):
        lines = textwrap.wrap(answer, max(width - _MARGIN, 30))
        print(f"{what:>{_MARGIN - 2}}  {lines[0]}")
        for line in lines[1:]:
            print(" " * _MARGIN + line)
