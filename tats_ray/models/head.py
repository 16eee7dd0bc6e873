"""The classifier that fine-tuning puts on the encoder."""

from __future__ import annotations

from torch import Tensor, nn

from tats_ray.core.arrays import Float


class ClassifierHead(nn.Module):
    """Mean over tokens, LayerNorm, linear map; the VideoMAE family's names [method section 9].

    It reads the last block's tokens: fine-tuned encoders have no final norm of their own.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def pool(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """Features of a clip."""
        return self.fc_norm(tokens.mean(1))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B classes"]:
        return self.head(self.pool(tokens))
