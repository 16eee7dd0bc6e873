"""A token sampler of your own: one class, trained through the whole Ray loop."""

import torch
from tats_ray.core.grid import TokenGrid
from torch import Tensor, nn


class CustomSampler(nn.Module):
    """Prefers tokens by what they are and by how they differ from the slot before.

    What follows the star can be set: `sampler.options`, or --sampler.options.hidden 32.
    """

    def __init__(self, width: int, grid: TokenGrid, *, hidden: int = 64) -> None:
        super().__init__()
        self.time = grid.time
        self.norm = nn.LayerNorm(2 * width)
        self.hidden = nn.Linear(2 * width, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)  # the first masks are uniformly random

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `B N width` to logits `B N`: the higher, the likelier visible."""
        batch, _, width = tokens.shape
        slots = tokens.reshape(batch, self.time, -1, width)  # time is the slowest index
        change = slots - slots.roll(1, dims=1)
        pairs = torch.cat([slots, change], -1).flatten(1, 2)
        seen = torch.relu(self.hidden(self.norm(pairs)))
        logits: Tensor = self.out(seen).squeeze(-1)
        return logits


if __name__ == "__main__":
    from tats_ray.runs.demo import try_out

    # A short training through the whole Ray loop, on videos that it makes.
    chosen = {
        "name": "custom_sampler:CustomSampler",
        "options": {"hidden": 32},
    }
    print(try_out({"sampler": chosen, "algorithm": {"lr": 1e-3}}).report)
