"""Classifier-free guidance: away from what the denoiser says without the condition (Ho & Salimans 2022).

    D_w = D_0 + w (D_1 - D_0)                                                                 (1)

with D_1 the conditional and D_0 the unconditional answer (arXiv:2207.12598; this is the convention of EDM2, and w here
is 1 + w there). The weight w = 1 is no guidance and w = 0 no condition; w > 1 is no longer a posterior: it sharpens the
law and makes ensembles under-dispersed, so 1 is the default. Guidance may be limited to an interval of noise levels
(Kynkäänniemi et al. 2024, arXiv:2404.07724).
"""

from torch import Tensor, where

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, Wrapper, expand
from sciffusion.errors import SciffusionError

__all__ = ["ClassifierFree", "Extrapolated"]

Interval = tuple[float, float]


class Extrapolated(Wrapper):
    """Equation (1) for two denoisers, D_1 = ``denoiser`` and D_0 = ``other``.

    Parameters
    ----------
    weight : w; 1 is ``denoiser`` alone, which is then the only one called.
    interval : levels (low, high): guidance acts where low < sigma <= high, sample by sample, and nowhere else.
    """

    def __init__(
        self, denoiser: Denoiser, other: Denoiser, weight: float = 1.0, interval: Interval = (0.0, float("inf"))
    ) -> None:
        super().__init__(denoiser)
        if (other.noise, other.dof) != (self.noise, self.dof):
            raise SciffusionError(
                f"guidance between a denoiser of {self.noise} noise (dof {self.dof}) and one of {other.noise} noise",
                "use two denoisers that were trained with the same noise",
            )
        if not interval[0] < interval[1]:
            raise SciffusionError(f"guidance on the empty interval {interval}", "give (low, high) with low < high")
        self.other, self.weight, self.interval = other, weight, interval
        self.gradients = denoiser.gradients or other.gradients

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """D_w in the interval, D_1 outside."""
        answer = self.denoiser(x, sigma, cond)
        if self.weight == 1.0:
            return answer
        base = self.without(x, sigma, cond)
        low, high = self.interval
        inside = expand((sigma > low) & (sigma <= high), answer)
        return where(inside, base + self.weight * (answer - base), answer)

    def without(self, x: Tensor, sigma: Tensor, cond: Context | None) -> Tensor:
        """D_0."""
        return self.other(x, sigma, cond)


class ClassifierFree(Extrapolated):
    """Equation (1) with D_0 the same denoiser under the condition ``null``.

    Parameters
    ----------
    null : what the conditioners give when every condition is dropped (their learned nulls); batch of x, or 1. None for
        a denoiser that takes None as no condition. What says which cells exist (``valid``) is kept from the condition.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        null: Context | None = None,
        weight: float = 1.0,
        interval: Interval = (0.0, float("inf")),
    ) -> None:
        super().__init__(denoiser, denoiser, weight, interval)
        self.null = null

    def without(self, x: Tensor, sigma: Tensor, cond: Context | None) -> Tensor:
        """D under the null condition."""
        return self.other(x, sigma, self._null(x, cond))

    def _null(self, x: Tensor, cond: Context | None) -> Context | None:
        valid = None if cond is None else cond.valid
        if self.null is None:
            return None if valid is None else Context(valid=valid)
        whole = self.null.map(lambda value: value.expand(x.shape[0], *value.shape[1:])).to(x.device)
        if valid is None:
            return whole
        return Context(whole.channels, whole.vector, whole.tokens, whole.token_mask, valid)
