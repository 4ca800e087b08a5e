"""Few-step models: the solution of the probability-flow ODE between any two levels, learnt as one function.

    f(x, sigma, s) = u x + (1 - u) A(x, sigma, s),      u = s / sigma,                           (1)

moves x from level sigma to s <= sigma (Kim et al. 2023, CTM, arXiv:2310.02279, eq. 9). A, the average denoiser, is
what subclasses give: on the diagonal it is the denoiser, A(x, sigma, sigma) = D(x, sigma); at s = 0 it is f itself, the
consistency function of Song et al. 2023 (arXiv:2303.01469). MeanFlow's average velocity is (x - A) / sigma in this
frame. A map of the ODE has the semigroup property f(f(x, sigma, m), m, s) = f(x, sigma, s); a constant A = D(x, sigma)
is one Euler (DDIM) step, so every denoiser is a flow map already, a good one over short steps.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.diffusion.sampling import Noise, Progress
from sciffusion.diffusion.solvers.table import Array, check_grid
from sciffusion.errors import SciffusionError

__all__ = ["DenoiserMap", "Diagonal", "FlowMap", "HeunMap", "NetworkMap", "sample_map"]


class FlowMap(nn.Module):
    """Base of all flow maps, equation (1). ``noise`` and ``dof`` name the law of z, as in a Denoiser.

    ``forward(x, sigma, sigma_to, cond)``: x (batch, channel, *grid), levels (batch,) with sigma > 0 and
    0 <= sigma_to <= sigma; returns the field at sigma_to in the shape and dtype of x.
    """

    noise: str = "gaussian"
    dof: float = math.inf
    __call__: Callable[..., Tensor]

    def average(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """A(x, sigma, sigma_to)."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """The field at level sigma_to."""
        average = self.average(x, sigma, sigma_to, cond)
        return torch.lerp(average, x, expand(sigma_to / sigma, x))


class DenoiserMap(FlowMap):
    """One Euler (DDIM) step of ``denoiser``: the teacher's step in progressive distillation.

    Trained as a consistency model (s = 0 only) its denoiser becomes the consistency function: easy consistency tuning
    starts here, with the weights of a denoiser and no change to its network.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.noise, self.dof = denoiser.noise, denoiser.dof

    def average(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """D(x, sigma), wherever the step goes."""
        return self.denoiser(x, sigma, cond)


class HeunMap(DenoiserMap):
    """One Heun step of ``denoiser`` (Karras et al. 2022, algorithm 1): two calls; Euler to sigma_to = 0."""

    def average(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """D + (D' - D) / 2u with D' at the end of the Euler step: the trapezoidal rule in the form of (1)."""
        first = self.denoiser(x, sigma, cond)
        share, last = sigma_to / sigma, sigma_to == 0
        euler = first + expand(share, x) * (x - first)
        second = self.denoiser(euler, torch.where(last, sigma, sigma_to), cond)
        gain = torch.where(last, 0, 0.5 / torch.where(last, 1, share))
        return first + expand(gain, x) * (second - first)


class NetworkMap(DenoiserMap):
    """A by a denoiser that is told sigma_to, through two more features at the end of the context's vector.

    The features are s / sigma, and log(s) / 4 levelled off below ``sigma_min``; both have derivatives at s = 0. Made
    of Preconditioned, alone or in Masked, Tiled or Projected, it has their coefficients, masks, tiles and constraints.
    """

    features = 2

    def __init__(self, denoiser: Denoiser, sigma_min: float = 0.002) -> None:
        super().__init__(denoiser)
        self.sigma_min = sigma_min

    def average(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """A(x, sigma, sigma_to)."""
        label = torch.stack([sigma_to / sigma, torch.log(sigma_to**2 + self.sigma_min**2) / 8], dim=1)
        cond = cond or Context()
        vector = label if cond.vector is None else torch.cat([cond.vector.to(label), label], dim=1)
        return self.denoiser(x, sigma, replace(cond, vector=vector))


class Diagonal(Denoiser):
    """The denoiser inside a flow map, A(x, sigma, sigma): for every solver, guidance or likelihood."""

    def __init__(self, flow_map: FlowMap) -> None:
        super().__init__()
        self.flow_map = flow_map
        self.noise, self.dof = flow_map.noise, flow_map.dof

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x]."""
        return self.flow_map.average(x, sigma, sigma, cond)


def sample_map(
    flow_map: FlowMap,
    x: Tensor,
    sigmas: Sequence[float] | Array,
    cond: Context | None = None,
    noise: Noise | None = None,
    *,
    gamma: float = 0.0,
    progress: Progress | None = None,
) -> Tensor:
    """Walk from ``x`` (batch, channel, *grid) at level ``sigmas[0]`` to ``sigmas[-1]``: len(sigmas) - 1 calls.

    Parameters
    ----------
    sigmas : falling levels, usually with a final 0; two of them make a one-step sampler.
    noise : ``noise(i)`` is the standard normal added after call i, in the shape of x; needed for ``gamma`` > 0.
    gamma : share of each level's sd that is drawn afresh (Kim et al. 2023, algorithm 3). 0 follows the ODE; 1 asks the
        map for sigma_to = 0 only: the multistep sampling of consistency models (Song et al. 2023, algorithm 1).
    progress : called with (calls done, calls in all) after every call.
    """
    grid = check_grid(sigmas)
    _check(flow_map, gamma, noise)
    levels = torch.as_tensor(grid, dtype=x.dtype).to(x.device)[:, None].expand(-1, len(x))
    kept = math.sqrt(1 - gamma**2)
    with torch.no_grad():
        for i, end in enumerate(grid[1:]):
            x = flow_map(x, levels[i], kept * levels[i + 1], cond).to(x.dtype)
            if gamma and end and noise is not None:
                x = x.add(noise(i).to(x), alpha=gamma * float(end))
            if progress is not None:
                progress(i + 1, len(grid) - 1)
    return x


def _check(flow_map: FlowMap, gamma: float, noise: Noise | None) -> None:
    if not 0 <= gamma <= 1:
        raise SciffusionError(f"a sampler that draws {gamma} of the noise afresh", "give gamma in [0, 1]")
    if gamma:
        require_gaussian(flow_map, "a sampler with gamma > 0")
        if noise is None:
            raise SciffusionError("this sampler adds noise and was given none", "pass noise=, or gamma=0")
