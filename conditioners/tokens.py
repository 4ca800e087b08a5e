"""What conditions that give tokens share: a projection to the common width, and one learned token in their place."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.context import Context

__all__ = ["Tokens"]


class Tokens(nn.Module):
    """Features (batch, token, feature) to a context of tokens of ``width``.

    A dropped sample has one learned token, and its other tokens count for nothing.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.null = nn.Parameter(0.1 * torch.randn(width))

    def forward(self, features: Tensor, mask: Tensor, keep: Tensor) -> Context:
        """``mask`` Bool (batch, token): tokens that count; ``keep`` Bool (batch,)."""
        tokens = self.project(F.layer_norm(features, features.shape[-1:]))
        first = torch.zeros_like(mask)
        first[:, 0] = True
        tokens = torch.where(keep[:, None, None], tokens, self.null.to(tokens))
        return Context(tokens=tokens, token_mask=torch.where(keep[:, None], mask, first))
