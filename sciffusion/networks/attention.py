"""Attention over the cells of a grid and from cells to tokens, for the UNet's levels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.networks.layers import Linear, sum_weights

__all__ = ["Attention", "TokenAttention", "attend", "attend_heads", "residual", "unit"]

HEAD_WIDTH = 64
SHARE = 0.3  # of attention in its residual sum (EDM2)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of (batch, query, width) to (batch, key, width), queries and keys of unit norm per head.

    ``mask`` Bool (batch, key): True where a key counts. A sample without any key gets zeros. Keys and queries have
    norm sqrt(width per head), so the logits' scale does not depend on the magnitude of the features.
    """
    return attend_heads(unit(_split(query, heads)), unit(_split(key, heads)), _split(value, heads), mask)


def attend_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of (batch, head, query, width), whatever the norm of queries and keys; see `attend`."""
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    present = mask.any(dim=1)
    # A row of a softmax needs one key: samples without any look at all of them and are zeroed afterwards.
    allowed = (mask | ~present[:, None])[:, None, None, :]
    answer = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    answer = answer.masked_fill(~present[:, None, None, None], 0.0)
    return answer.transpose(1, 2).flatten(2)


def _split(x: Tensor, heads: int) -> Tensor:
    """(batch, cell, width) to (batch, head, cell, width / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to unit root mean square."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)


class Attention(nn.Module):
    """Residual attention of the cells of (batch, channel, *grid): to each other, and to tokens when there are any."""

    def __init__(self, channels: int, token_features: int, normalised: bool) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_WIDTH)
        if channels % self.heads:
            self.heads = 1
        self.normalised = normalised
        self.project = Linear(channels, 3 * channels, normalised)
        self.out = Linear(channels, channels, normalised, zero=not normalised)
        self.tokens = TokenAttention(channels, token_features, self.heads, normalised) if token_features else None

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend; ``tokens`` (batch, token, feature) with ``mask`` Bool (batch, token) need a network built so."""
        cells = x.flatten(2).transpose(1, 2)
        query, key, value = self.project(cells).chunk(3, dim=-1)
        answer = self.out(attend(query, key, value, self.heads))
        cells = residual(cells, answer, self.normalised)
        if self.tokens is not None and tokens is not None:
            cells = residual(cells, self.tokens(cells, tokens, mask), self.normalised)
        return cells.transpose(1, 2).reshape(x.shape)


class TokenAttention(nn.Module):
    """Attention from cells (batch, cell, channel) to tokens (batch, token, feature)."""

    def __init__(self, channels: int, token_features: int, heads: int, normalised: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(channels, channels, normalised)
        self.key_value = Linear(token_features, 2 * channels, normalised)
        self.out = Linear(channels, channels, normalised, zero=not normalised)

    def forward(self, cells: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """The tokens' contribution to each cell; tokens whose mask is False have none."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        answer: Tensor = self.out(attend(self.query(cells), key, value, self.heads, mask))
        return answer


def residual(x: Tensor, y: Tensor, normalised: bool) -> Tensor:
    """Return x + y, magnitude-preserving when asked."""
    if not normalised:
        return x + y
    keep, share = sum_weights(SHARE)
    return torch.add(x * keep, y, alpha=share)
