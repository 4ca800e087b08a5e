"""What enters a network beside the noise level: the field, the context's channels, and a constant."""

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.errors import SciffusionError

__all__ = ["gather"]


def gather(x: Tensor, cond: Context, context_channels: int) -> Tensor:
    """Concatenate x, ``cond.channels`` and ones; (batch, channel, *grid).

    The ones stand for biases, and show where a domain padded with zeros ends. Raises SciffusionError when the context
    has not the number of channels that the network was built for.
    """
    given = 0 if cond.channels is None else cond.channels.shape[1]
    if given != context_channels:
        raise SciffusionError(
            f"the network was built for {context_channels} context channels and got {given}",
            "sample with the conditions that it was trained with",
        )
    parts = [x] if cond.channels is None else [x, cond.channels.to(x.dtype)]
    return torch.cat([*parts, torch.ones_like(x[:, :1])], dim=1)
