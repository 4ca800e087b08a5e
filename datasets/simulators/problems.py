"""Problems to train on and to compare families with: what is simulated, on which grid, and how coarse the input is.

A problem is data: its numbers stand in one table, and two functions (independent draws, or trajectories of a flow) make
pairs of a fine and a coarse field from them. Case n is the same whichever others are made with it, on one kind of
device and to rounding; turbulence amplifies rounding, so that other devices give other flows of the same statistics.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciffusion.datasets.simulators import gaussian
from sciffusion.datasets.simulators.box import block_means, resample
from sciffusion.datasets.simulators.kolmogorov import KolmogorovFlow
from sciffusion.datasets.simulators.kuramoto_sivashinsky import KuramotoSivashinsky
from sciffusion.datasets.simulators.model import Model, frames
from sciffusion.datasets.simulators.shallow_water import ShallowWater
from sciffusion.errors import SciffusionError

__all__ = ["PROBLEMS", "Problem", "get"]

Pairs = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Problem:
    """One problem.

    ``variables``: name -> attributes; ``shape`` and ``length`` (in ``units``) of the fine grid, the same along every
    axis; ``factor``: fine cells per coarse cell and axis; ``cases``: trajectories, or independent draws, to (train,
    validate, test) on; ``frames``: times of a trajectory, 0 for independent draws; ``interval`` between them in
    ``time_units``; ``batch``: cases made at once; ``make(problem, cases, seed, device)`` yields (fine, coarse), each
    (case, channel, *grid), frame by frame.
    """

    summary: str
    variables: Mapping[str, Mapping[str, str]]
    shape: tuple[int, ...]
    length: float
    factor: int
    cases: tuple[int, int, int]
    make: Callable[["Problem", Sequence[int], int, torch.device], Pairs]
    units: str = "1"
    frames: int = 0
    interval: float = 0.0
    time_units: str = "1"
    batch: int = 32
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def case_dim(self) -> str:
        """Dim that the cases are split along."""
        return "trajectory" if self.frames else "sample"

    @property
    def dims(self) -> tuple[str, ...]:
        """Grid dims, slowest first."""
        return ("z", "y", "x")[-len(self.shape) :]


def get(name: str) -> Problem:
    """The problem called ``name``. Raises SciffusionError for an unknown one."""
    if name not in PROBLEMS:
        raise SciffusionError(f"no problem is called {name!r}", f"known: {', '.join(PROBLEMS)}")
    return PROBLEMS[name]


def _draws(problem: Problem, cases: Sequence[int], seed: int, device: torch.device) -> Pairs:
    """Independent Gaussian fields and their block means."""
    law = gaussian.law(problem.shape, problem.settings["slope"])
    fine = gaussian.draw(cases, law, seed=seed, name=f"grf{len(problem.shape)}d")
    yield fine, block_means(fine, problem.factor, len(problem.shape))


def _flow(model: Callable[..., Model], spin_up: int, steps: int, **settings: Any) -> Callable[..., Pairs]:
    """A flow and the block means of the same flow; ``spin_up`` frames are left out, a frame takes ``steps`` steps."""

    def make(problem: Problem, cases: Sequence[int], seed: int, device: torch.device) -> Pairs:
        flow = model(step=problem.interval / steps, device=device, **settings)
        for number, state in enumerate(frames(flow, flow.start(cases, seed), steps, spin_up + problem.frames)):
            if number >= spin_up:
                fine = resample(flow.fields(state), problem.shape)
                yield fine, block_means(fine, problem.factor, len(problem.shape))

    return make


def _coarse_run(spin_up: int, steps: int, size: int, coarse: int, lead: int) -> Callable[..., Pairs]:
    """Kolmogorov flow, and the means of a run on ``coarse`` points that left the fine one ``lead`` frames before.

    The coarse run takes the fine state's large scales, then goes its own way: it is a biased forecast, whose means are
    not those of the truth.
    """

    def make(problem: Problem, cases: Sequence[int], seed: int, device: torch.device) -> Pairs:
        flow = KolmogorovFlow(size, problem.interval / steps, device=device)
        rough = KolmogorovFlow(coarse, problem.interval / (steps // 2), device=device)
        past: deque[Tensor] = deque(maxlen=lead)
        for number, state in enumerate(frames(flow, flow.start(cases, seed), steps, spin_up + problem.frames)):
            if number >= spin_up:
                *_, forecast = frames(rough, flow.continued(past[0], rough), steps // 2, lead)
                means = block_means(rough.fields(forecast), coarse * problem.factor // problem.shape[-1], 2)
                yield resample(flow.fields(state), problem.shape), means
            past.append(state)

    return make


_VELOCITY = {"u": {"long_name": "velocity along x"}, "v": {"long_name": "velocity along y"}}
_KOLMOGOROV: dict[str, Any] = {
    "variables": _VELOCITY,
    "shape": (128, 128),
    "length": 2 * math.pi,
    "factor": 8,
    "cases": (48, 8, 8),
    "frames": 64,
    "interval": 0.2,
}

PROBLEMS: dict[str, Problem] = {
    "grf": Problem(
        summary="Gaussian field, spectral density k^-3, given 8 x 8 block means; the exact answer is known",
        variables={"phi": {"long_name": "Gaussian random field"}},
        shape=(64, 64),
        length=1.0,
        factor=8,
        cases=(8192, 64, 64),
        make=_draws,
        batch=256,
        settings={"slope": 3.0},
    ),
    "grf96": Problem(  # nothing is developed on it: what was chosen on grf is tried here
        summary="Gaussian field on a finer grid, spectral density k^-2.5, given 4 x 4 block means; exact answer known",
        variables={"phi": {"long_name": "Gaussian random field"}},
        shape=(96, 96),
        length=1.0,
        factor=4,
        cases=(8192, 64, 64),
        make=_draws,
        batch=256,
        settings={"slope": 2.5},
    ),
    "grf3d": Problem(
        summary="Gaussian field in three dimensions, spectral density k^-4, given 4 x 4 x 4 block means",
        variables={"phi": {"long_name": "Gaussian random field"}},
        shape=(32, 32, 32),
        length=1.0,
        factor=4,
        cases=(2048, 32, 32),
        make=_draws,
        batch=64,
        settings={"slope": 4.0},
    ),
    "kolmogorov": Problem(
        summary="forced two-dimensional turbulence, velocity at 128^2 of a 256^2 run, given 8 x 8 block means",
        make=_flow(KolmogorovFlow, spin_up=64, steps=64, size=256),
        **_KOLMOGOROV,
    ),
    "kolmogorov-coarse": Problem(
        summary="the same turbulence given a forecast of a 64^2 run, started from the truth one time unit before",
        make=_coarse_run(spin_up=64, steps=64, size=256, coarse=64, lead=5),
        **_KOLMOGOROV,
    ),
    "shallow-water": Problem(
        summary="rotating shallow water, eddies and gravity waves at 31 km, given 8 x 8 block means",
        variables={
            "u": {"long_name": "velocity along x", "units": "m s-1"},
            "v": {"long_name": "velocity along y", "units": "m s-1"},
            "h": {"long_name": "height above the mean depth", "units": "m"},
        },
        shape=(128, 128),
        length=4e6,
        units="m",
        factor=8,
        cases=(96, 16, 16),
        frames=16,
        interval=21600.0,
        time_units="s",
        make=_flow(ShallowWater, spin_up=8, steps=108, size=128),
    ),
    "kuramoto-sivashinsky": Problem(
        summary="spatio-temporal chaos in one dimension on 192 points, given means over 4 of them",
        variables={"u": {"long_name": "Kuramoto-Sivashinsky field"}},
        shape=(192,),
        length=64.0,
        factor=4,
        cases=(192, 32, 32),
        frames=64,
        interval=5.0,
        make=_flow(KuramotoSivashinsky, spin_up=40, steps=50, size=192),
        batch=256,
    ),
}
