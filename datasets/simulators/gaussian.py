"""Gaussian random fields given their block means: draws, and the exact answer to compare with.

Notation: x ~ N(0, S) stationary, a mode of k cycles per domain has the variance k^-slope and the mean none, scaled to
variance 1 per cell; y = C x are means over blocks. Then with K = S C^T (C S C^T)^+

    x | y ~ N(K y, S - K C S),     and     K y + (z - K C z) with z ~ N(0, S) is a draw of it          (1)

(Matheron's rule; Wilson et al. 2021, arXiv:2011.04026, equation 10), so nothing of cells x cells is ever written out.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciffusion.diffusion.problems import GaussianField
from sciffusion.noise import NoiseKey, normal
from sciffusion.operators import BlockMean

__all__ = ["BlockPosterior", "draw", "law"]


def law(shape: Sequence[int], slope: float) -> GaussianField:
    """The field's law, N(0, S)."""
    return GaussianField(lambda k: np.where(k > 0, np.maximum(k, 1.0) ** -slope, 0.0), shape)


def draw(cases: Sequence[int], field: GaussianField, *, seed: int, name: str) -> Tensor:
    """Fields (case, 1, *shape), float64; each depends on (seed, name, case) alone, to rounding."""
    keys = [NoiseKey(seed, (int(case),), 0, stage=name) for case in cases]
    noise = torch.stack([torch.from_numpy(normal(key, field.shape)) for key in keys]).double()
    return field.filter(field.modes.sqrt(), noise[:, None])


class BlockPosterior:
    """Equation (1) for ``field`` given means over blocks of ``factor`` cells a side.

    ``variance`` (*shape) is that of every cell.
    """

    def __init__(self, field: GaussianField, factor: int) -> None:
        self.field = field
        self._means = BlockMean(field.shape, (factor,) * len(field.shape))
        blocks = math.prod(self._means.out_shape)
        units = torch.eye(blocks, dtype=field.modes.dtype).reshape(blocks, *self._means.out_shape)
        cross = field.filter(field.modes, self._means.adjoint(units))  # C S, (block, *shape)
        gram = self._means(cross).reshape(blocks, blocks)
        self._weights = torch.linalg.pinv(gram, hermitian=True) @ cross.flatten(1)  # K^T, (block, cells)
        explained = (cross.flatten(1) * self._weights).sum(0).reshape(field.shape)
        self.variance = (field.spectrum.mean() - explained).clamp(min=0)

    def mean(self, y: Tensor) -> Tensor:
        """E[x | y], (..., *shape), of y (..., *coarse shape)."""
        leading = y.shape[: y.ndim - len(self.field.shape)]
        flat = y.to(self._weights).reshape(*leading, -1) @ self._weights
        mean: Tensor = flat.reshape(*leading, *self.field.shape)
        return mean

    def sample(self, y: Tensor, members: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (member, case, 1, *shape) given y (case, 1, *coarse shape)."""
        z = self.field.sample(members * len(y), generator)
        z = z.reshape(members, len(y), *z.shape[1:])
        return self.mean(y) + z - self.mean(self._means(z))

    @property
    def crps_floor(self) -> float:
        """Expected fair CRPS of the exact posterior: the mean of its sd over sqrt(pi)."""
        return float(self.variance.sqrt().mean()) / math.sqrt(math.pi)
