"""Constant tensors of an operator, wherever it is used."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Constants"]


class Constants:
    """Constant tensors, copied once to every device and precision in which they are used."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies: dict[tuple[torch.device, torch.dtype | None], list[Tensor]] = {}
        self._originals = [tensor.detach().cpu() for tensor in tensors]

    def on(self, x: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
        """On the device of ``x``, in ``dtype`` (None: their own)."""
        key = (x.device, dtype)
        if key not in self._copies:
            self._copies[key] = [tensor.to(device=x.device, dtype=dtype) for tensor in self._originals]
        return self._copies[key]

    def like(self, x: Tensor) -> list[Tensor]:
        """On the device of ``x`` and in its precision."""
        return self.on(x, x.dtype)
