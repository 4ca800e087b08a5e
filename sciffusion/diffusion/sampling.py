"""Running a plan: from noise to a field in a few axpys per step, without waiting for the device.

The start ``x`` is made by the caller, who owns the noise (it is keyed by member, so that a member is the same whatever
its batch-mates): sd sqrt(1 + sigma_0^2) for a denoiser of unit-variance data, or paths.Path.start for a paper's own.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion import solvers
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.diffusion.solvers.table import Array, Plan, Row
from sciffusion.errors import SciffusionError

__all__ = ["Noise", "gaussian", "integrate", "levels", "sample", "start_sd"]

Noise = Callable[[int], Tensor]
Progress = Callable[[int, int], None]


def sample(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Sequence[float] | Array,
    solver: str | Plan = "dpmpp-2m",
    cond: Context | None = None,
    noise: Noise | None = None,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Tensor:
    """Sample x0 given the start ``x`` (batch, channel, *grid) at level ``sigmas[0]``.

    Parameters
    ----------
    sigmas : falling levels (steps + 1,), usually with a final 0.
    solver : a name of `solvers.names` with its ``settings``, or a plan made before (``sigmas`` is then its own).
    noise : ``noise(i)`` is the standard normal of the i-th noise addition (0 before the first call, r + 1 after
        call r), in the shape of x; needed by stochastic solvers only.
    progress : called with (calls done, calls in all) after every call.

    Returns
    -------
    The field in the dtype of ``x``, which is also that of the arithmetic. Runs under no_grad, not inference_mode, so
    that a guidance may turn gradients on.
    """
    plan = solver if isinstance(solver, Plan) else solvers.plan(solver, sigmas, **settings)
    _check(denoiser, plan, noise)
    with torch.no_grad():
        return integrate(denoiser, x, plan, levels(plan, x), cond, noise, progress)


def _check(denoiser: Denoiser, plan: Plan, noise: Noise | None) -> None:
    if not plan.stochastic:
        return
    require_gaussian(denoiser, "a stochastic solver")
    if noise is None:
        raise SciffusionError(
            "this solver adds noise on the way and was given none",
            "pass noise=, for example sampling.gaussian(x, generator)",
        )


def levels(plan: Plan, x: Tensor) -> Tensor:
    """The level of every call for every sample, (calls, batch), on the device and in the dtype of x.

    Copied once, without waiting for what the device still has to do; contiguous, as recorded calls have it.
    """
    sigma = torch.as_tensor(plan.sigma, dtype=x.dtype).to(x.device, non_blocking=True)
    return sigma[:, None].repeat(1, x.shape[0])


def integrate(
    denoiser: Denoiser,
    x: Tensor,
    plan: Plan,
    sigma: Tensor,
    cond: Context | None = None,
    noise: Noise | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The bare loop of equations (1) and (2) of solvers/table.py, with ``sigma`` from `levels`.

    Nothing in it depends on values, so it can be compiled or captured as a CUDA graph (without ``progress``), except
    with guidance that needs gradients: whoever compiles or captures calls denoiser.require_capturable first.
    """
    answers: deque[Tensor] = deque(maxlen=plan.depth)
    y: Tensor | None = None
    if plan.kick:
        x = _kick(x, plan.kick, 0, noise)
    for r, row in enumerate(plan.rows):
        answers.appendleft(_kept(row, denoiser(x, sigma[r], cond).to(x.dtype), x))
        x, y = _update(row, x, y, answers)
        if row.noise:
            x = _kick(x, row.noise, r + 1, noise)
        if progress is not None:
            progress(r + 1, plan.calls)
    return x


def _kept(row: Row, answer: Tensor, x: Tensor) -> Tensor:
    return answer if row.answer == (1.0, 0.0) else _combine(row.answer, (answer, x))


def _update(row: Row, x: Tensor, y: Tensor | None, answers: Iterable[Tensor]) -> tuple[Tensor, Tensor | None]:
    known = (x, y, *answers)
    kept = _combine((*row.y, *row.g), known) if row.g or row.y != (0.0, 0.0) else None
    return _combine((*row.x, *row.b), known), kept


def _combine(coefficients: Sequence[float], tensors: Sequence[Tensor | None]) -> Tensor:
    """The linear combination, skipping zeros (not all are). No argument is changed in place."""
    (c, first), *rest = [(c, t) for c, t in zip(coefficients, tensors, strict=False) if c and t is not None]
    if c == 1.0 and not rest:
        return first
    total = first * c
    for c, term in rest:
        total.add_(term, alpha=c)
    return total


def _kick(x: Tensor, sd: float, index: int, noise: Noise | None) -> Tensor:
    assert noise is not None, "a stochastic plan needs noise"
    return x.add(noise(index).to(x), alpha=sd)


def gaussian(like: Tensor, generator: torch.Generator | None = None) -> Noise:
    """Standard normal noise in the shape of ``like`` drawn in the order of the calls (not keyed by member)."""

    def draw(_: int) -> Tensor:
        device = generator.device if generator is not None else like.device
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)

    return draw


def start_sd(sigma: float, sigma_data: float = 1.0) -> float:
    """Sd of x at level ``sigma`` for data of sd ``sigma_data``: that of the start noise."""
    return float((sigma_data**2 + sigma**2) ** 0.5)
