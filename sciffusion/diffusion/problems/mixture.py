"""Mixtures of Gaussian fields: not Gaussian (regimes, several spectra), and still exact.

Notation: component k has probability w_k and law N(m_k, S_k); r_k(x, sigma) = P(k | x) its responsibility for
x = x0 + sigma z. Then D = sum_k r_k D_k, and the posterior given data is the mixture of posteriors with w_k times the
evidence of component k.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.diffusion.problems import scores
from sciffusion.diffusion.problems.gaussian import GaussianLaw
from sciffusion.errors import SciffusionError
from sciffusion.operators import LinearOperator

__all__ = ["GaussianMixture"]


class GaussianMixture:
    """Mixture of Gaussian laws on one grid.

    Parameters
    ----------
    laws : the components.
    weights : their probabilities, up to a factor; None: equal.
    """

    def __init__(self, laws: Sequence[GaussianLaw], weights: Sequence[float] | Tensor | None = None) -> None:
        if len({law.shape for law in laws}) != 1:
            raise SciffusionError("the laws of a mixture lie on different grids", "give them one shape")
        self.laws = tuple(laws)
        self.shape = laws[0].shape
        given = torch.ones(len(laws)) if weights is None else torch.as_tensor(weights)
        self.weights = given.double() / given.double().sum()

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples (batch, 1, *grid)."""
        chosen = torch.multinomial(self.weights, batch, replacement=True, generator=generator)
        draws = torch.stack([law.sample(batch, generator) for law in self.laws])
        return draws[chosen, torch.arange(batch)]

    def log_joint(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Log of w_k times the density of component k, (component, batch)."""
        densities = torch.stack([law.log_prob(x, sigma) for law in self.laws])
        return densities + self.weights.to(x).log()[:, None]

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Log density (batch,) in nats of x = x0 + sigma z, x (batch, 1, *grid)."""
        return torch.logsumexp(self.log_joint(x, sigma), dim=0)

    def denoiser(self) -> "MixtureDenoiser":
        """The exact denoiser."""
        return MixtureDenoiser(self)

    def posterior(self, operator: LinearOperator, y: Tensor, noise: float) -> "GaussianMixture":
        """The law of x0 given y (*operator.out_shape) with errors of variance ``noise`` > 0."""
        if noise <= 0:
            raise SciffusionError("a mixture's posterior needs observation errors", "give noise > 0")
        evidence = torch.stack([law.evidence(operator, y, noise) for law in self.laws])
        weights = torch.softmax(evidence + self.weights.to(evidence).log(), dim=0)
        return GaussianMixture([law.posterior(operator, y, noise) for law in self.laws], weights)

    def crps_floor(self) -> float:
        """Expected CRPS, averaged over cells, of this law as the forecast of its own draws: E |x - x'| / 2."""
        means = [law.mean.double().numpy() for law in self.laws]
        variances = [law.cell_sd().double().numpy() ** 2 for law in self.laws]
        pairs = [
            [scores.expected_distance(a - b, v + w).mean() for b, w in zip(means, variances, strict=True)]
            for a, v in zip(means, variances, strict=True)
        ]
        return self._average(np.array(pairs)) / 2

    def energy_floor(self) -> float:
        """Expected energy score of this law as the forecast of its own draws: E |x - x'| / 2."""
        return self._average(np.array([[_distance(a, b) for b in self.laws] for a in self.laws])) / 2

    def _average(self, pairs: np.ndarray) -> float:
        weights = self.weights.numpy()
        return float(weights @ pairs @ weights)


def _distance(a: GaussianLaw, b: GaussianLaw) -> float:
    """E |x - x'| of a draw of each."""
    values, vectors = torch.linalg.eigh(a.covariance() + b.covariance())
    shift = (a.mean - b.mean).reshape(-1) @ vectors
    return scores.expected_norm(values.clamp(min=0).double().numpy(), shift.double().numpy())


class MixtureDenoiser(Denoiser):
    """D = sum_k r_k D_k, for fields of one channel."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.parts = [law.denoiser() for law in mixture.laws]

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x] of x (batch, 1, *grid)."""
        shares = torch.softmax(self.mixture.log_joint(x, sigma), dim=0)
        answers = torch.stack([expand(r, x) * part(x, sigma) for r, part in zip(shares, self.parts, strict=True)])
        return answers.sum(0)
