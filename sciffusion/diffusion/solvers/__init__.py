"""Solvers by name: ``plan(name, sigmas, **settings)`` makes the table that `sciffusion.diffusion.sampling` runs."""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from sciffusion.diffusion.solvers.adams import adams
from sciffusion.diffusion.solvers.exponential import dpmpp_2m, dpmpp_2s, dpmpp_3m, multistep
from sciffusion.diffusion.solvers.heun import euler, heun
from sciffusion.diffusion.solvers.stochastic import ddim, ddpm, euler_maruyama, predictor_corrector
from sciffusion.diffusion.solvers.table import Array, Plan, Row
from sciffusion.diffusion.solvers.unipc import unipc
from sciffusion.errors import SciffusionError

__all__ = ["Plan", "Row", "calls", "names", "plan"]

_SOLVERS: dict[str, Callable[..., Plan]] = {
    "euler": euler,
    "heun": heun,
    "ddim": ddim,
    "ddpm": ddpm,
    "euler-maruyama": euler_maruyama,
    "predictor-corrector": predictor_corrector,
    "dpmpp-1": euler,
    "dpmpp-2s": dpmpp_2s,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-3m": dpmpp_3m,
    "dpmpp-1-sde": partial(multistep, order=1, eta=1.0),
    "dpmpp-2s-sde": partial(dpmpp_2s, eta=1.0),
    "dpmpp-2m-sde": partial(dpmpp_2m, eta=1.0),
    "dpmpp-3m-sde": partial(dpmpp_3m, eta=1.0),
    "unipc": unipc,
    "adams": adams,
}


def names() -> list[str]:
    """Every solver that `plan` knows."""
    return list(_SOLVERS)


def plan(name: str, sigmas: Sequence[float] | Array, **settings: Any) -> Plan:
    """The table of solver ``name`` on the levels ``sigmas`` (falling; a final 0 is the exact step x <- D).

    ``settings`` are the solver's own (churn, eta, order, ...). Raises SciffusionError for an unknown name or setting.
    """
    if name not in _SOLVERS:
        raise SciffusionError(f"no solver is called {name!r}", f"known: {', '.join(_SOLVERS)}")
    known = list(inspect.signature(_SOLVERS[name]).parameters)[1:]
    for setting in settings:
        if setting not in known:
            raise SciffusionError(
                f"solver {name!r} has no setting {setting!r}", f"it has: {', '.join(known) or 'none'}"
            )
    return _made(name, tuple(np.asarray(sigmas, dtype=np.float64).tolist()), tuple(sorted(settings.items())))


@lru_cache(maxsize=128)
def _made(name: str, sigmas: tuple[float, ...], settings: tuple[tuple[str, Any], ...]) -> Plan:
    """Plans do not change, so a sampler that is called for batch after batch makes its own once."""
    try:
        return _SOLVERS[name](np.array(sigmas), **dict(settings))
    except (ValueError, ArithmeticError) as error:  # a variance below 0, a node at the step's start
        raise SciffusionError(
            f"no {name} has {dict(settings)} ({error})", "see its docstring for their ranges"
        ) from error


def calls(name: str, steps: int, *, final_zero: bool = True, **settings: Any) -> int:
    """Exact number of denoiser calls of ``steps`` steps, the last of them to sigma = 0 when ``final_zero``."""
    levels = np.geomspace(1.0, 0.01, steps if final_zero else steps + 1)
    return plan(name, np.append(levels, 0.0) if final_zero else levels, **settings).calls
