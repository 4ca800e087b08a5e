"""What networks are trained to minimise. Losses are per sample (batch,), so that a caller can weigh or log them.

Averages over cells are weighted by cell area / mean (at least 0.05, so that polar rows still count) and by validity:
sum(w m e^2) / sum(w m) with both sums over the batch, which the mean of the returned values equals.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.diffusion.noises import draw
from sciffusion.diffusion.sigmas import Levels, placed
from sciffusion.diffusion.weights import LearnedUncertainty, edm_weight
from sciffusion.errors import SciffusionError

__all__ = ["AREA_FLOOR", "almost_fair_crps", "denoising_error", "denoising_loss", "weighted_mean"]

AREA_FLOOR = 0.05


def weighted_mean(values: Tensor, weights: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
    """Area- and mask-weighted mean of ``values`` (batch, channel, *grid) per sample, (batch,).

    Each is divided by the batch's mean weight, so that the mean over the batch is sum(w m v) / sum(w m): a sample with
    few valid cells counts for as much as it has. 0 where nothing is valid.
    """
    w = torch.ones((), dtype=values.dtype, device=values.device)
    if weights is not None:
        w = weights.to(values).clamp(min=AREA_FLOOR)
    if valid is not None:
        w = w * valid
        values = torch.where(valid, values, 0)
    w = w.expand_as(values).flatten(1)
    total = w.sum(1).mean().clamp(min=torch.finfo(values.dtype).tiny)
    return (w * values.flatten(1)).sum(1) / total


def denoising_error(
    denoiser: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    z: Tensor,
    cond: Context | None = None,
    weights: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Mean square error of D(x0 + sigma z) against x0 per sample, (batch,), at given levels (batch,) and noise."""
    valid = cond.valid if valid is None and cond is not None else valid
    if valid is not None:
        x0 = torch.where(valid, x0, 0)
    answer = denoiser(x0 + expand(sigma, x0) * z, sigma, cond)
    return weighted_mean((answer - x0) ** 2, weights, valid)


def denoising_loss(
    denoiser: Denoiser,
    x0: Tensor,
    cond: Context | None,
    noise_range: Levels,
    generator: torch.Generator | None = None,
    weights: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    level_weight: Callable[[Tensor], Tensor] = edm_weight,
    uncertainty: LearnedUncertainty | None = None,
) -> Tensor:
    """Denoising score matching per sample, (batch,): lambda(sigma) times `denoising_error`, sigma from ``noise_range``.

    Parameters
    ----------
    x0 : (batch, channel, *grid), normalised; what stands at invalid cells does not matter (NaN included).
    weights : cell areas over their mean, broadcastable to x0; None: equal.
    valid : Bool, broadcastable to x0; None: ``cond.valid``.
    generator : draws levels and noise on its own device; with the same state the loss is the same.
    level_weight : lambda, from weights.py.
    uncertainty : trained with the network (its parameters go to the optimiser, not into the emulator).
    """
    sigma = placed(noise_range.sample(x0.shape[0], generator), x0)
    z = draw(denoiser, x0, generator)
    loss = level_weight(sigma) * denoising_error(denoiser, x0, sigma, z, cond, weights, valid)
    return loss if uncertainty is None else uncertainty(loss, sigma)


def almost_fair_crps(
    ensemble: Tensor, truth: Tensor, alpha: float = 0.95, weights: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Almost-fair CRPS per sample, (batch,): eq. 4 of Lang et al. 2024, arXiv:2412.15832.

    sum_j |x_j - y| / M - (1 - eps) sum_{j<k} |x_j - x_k| / (M (M - 1)), eps = (1 - alpha) / M. alpha = 1 is the fair
    CRPS, which leaves one member free to run away; alpha below 1 ties all of them to the truth.

    Parameters
    ----------
    ensemble : (member, batch, channel, *grid), at least two members.
    truth : (batch, channel, *grid).
    """
    members = len(ensemble)
    if members < 2:
        raise SciffusionError("the fair CRPS of one member is not defined", "use two members or more")
    error = ensemble - truth  # before anything else: no digits are lost to a large mean
    ordered = error.sort(dim=0).values
    rank = torch.arange(members, dtype=error.dtype, device=error.device) * 2 - (members - 1)
    spread = torch.tensordot(rank, ordered, dims=1) / (members * (members - 1))
    score = error.abs().mean(0) - (1 - (1 - alpha) / members) * spread
    return weighted_mean(score, weights, valid)
