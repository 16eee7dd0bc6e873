"""Heads that read a frozen encoder, and many of them trained side by side.

`HeadStack` holds copies of one head along a leading axis `H`. They see the same batches, so one
pass over the features tries a whole grid of learning rates and weight decays.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import layer_norm

from tats_ray.core.arrays import Float
from tats_ray.models.mae import Encoder

_EPS = 1e-6


@torch.no_grad()
def raw_tokens(encoder: Encoder, pixels: Float[Tensor, "B N P"]) -> Float[Tensor, "B N D"]:
    """Outputs of the last block for all tokens, before any norm [method section 9].

    Args:
        pixels: ImageNet-normalised.
    """
    x = encoder.patch_embed(pixels) + encoder.pos_embed
    for block in encoder.blocks:
        x = block(x)
    return x


def linear_head(width: int, num_classes: int) -> nn.Linear:
    """A plain classifier, to stand behind a batch norm without parameters."""
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def norm_head(width: int, num_classes: int) -> nn.Sequential:
    """The head of fine-tuning: a layer norm of its own, and a classifier that starts near zero."""
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.weight.mul_(0.001)
    norm = nn.LayerNorm(width, eps=_EPS)
    return nn.Sequential(OrderedDict(fc_norm=norm, head=head))


class AttentiveHead(nn.Module):
    """One learned query that attends to all tokens, an MLP, and a classifier.

    Source: Bardes et al. (2024, V-JEPA), the attentive probe of one block.
    """

    def __init__(self, width: int, num_classes: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(width))
        self.to_query = nn.Linear(width, width)
        # A key's bias adds the same to all logits of a softmax.
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm_out = nn.LayerNorm(width, eps=_EPS)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        # A layer norm's own scale and shift would be one more linear map before two others.
        tokens = layer_norm(tokens, tokens.shape[-1:], eps=_EPS)
        x = self.query + self.project(self.attend(tokens))
        x = x + self.mlp(self.norm_mlp(x))
        return self.head(self.norm_out(x))

    def attend(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """What the query takes from the tokens, heads side by side.

        There is one query and there are many tokens, so keys and values are not computed: their
        matrices act on the query and on the mixed tokens, D / heads times cheaper and the same.
        """
        size = tokens.shape[-1] // self.num_heads
        query = self.to_query(self.query).unflatten(-1, (self.num_heads, size)) / size**0.5
        key = self.to_key.weight.unflatten(0, (self.num_heads, size))
        toward = torch.einsum("hs,hsd->hd", query, key)
        attention = torch.einsum("bnd,hd->bhn", tokens, toward).softmax(-1)
        mixed = torch.einsum("bhn,bnd->bhd", attention, tokens)
        value = self.to_value.weight.unflatten(0, (self.num_heads, size))
        return torch.einsum("bhd,hsd->bhs", mixed, value).flatten(1) + self.to_value.bias


class HeadStack:
    """`num` copies of a head, equal at first, that are run and trained together.

    Args:
        head: the copy; its own parameters are left alone.
    """

    def __init__(self, head: nn.Module, num: int) -> None:
        self._head = copy.deepcopy(head)
        self.num = num
        self.parameters = {
            name: value.detach().expand(num, *value.shape).clone().requires_grad_()
            for name, value in head.named_parameters()
        }

    def __call__(self, features: Float[Tensor, "B ..."]) -> Float[Tensor, "H B C"]:
        def one(parameters: dict[str, Tensor]) -> Tensor:
            return functional_call(self._head, parameters, (features,))

        return vmap(one)(self.parameters)

    def __iter__(self) -> Iterator[nn.Module]:
        """The heads one by one, as modules of their own."""
        for number in range(self.num):
            head = copy.deepcopy(self._head)
            state = {
                name: value[number].detach().clone() for name, value in self.parameters.items()
            }
            head.load_state_dict(state)
            yield head


def fold_batch_norm(norm: nn.BatchNorm1d, head: nn.Linear) -> nn.Linear:
    """The one linear layer that `head` after `norm`, a trained one without parameters, is."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    folded = copy.deepcopy(head)
    scale = (norm.running_var + norm.eps).rsqrt()
    with torch.no_grad():
        folded.weight.mul_(scale)
        folded.bias.sub_(folded.weight @ norm.running_mean)
    return folded
