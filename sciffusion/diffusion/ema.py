"""Exponential moving averages of weights whose length grows with training, and their reconstruction afterwards.

The power-function average after step t has weights proportional to tau^gamma over the steps tau <= t (Karras et al.
2024, arXiv:2312.02696, section 3), by the update theta <- theta + (1 - beta_t) (weights - theta) with
beta_t = (1 - 1/t)^(gamma + 1). An average whose half-life is a share s of the steps done is the same thing with
gamma + 1 = log 2 / s.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["EMA", "gamma_of_halflife", "gamma_of_width", "posthoc_weights", "reconstruct", "width_of_gamma"]


def gamma_of_halflife(share: float) -> float:
    """Exponent whose average halves a weight in ``share`` of the steps done."""
    return math.log(2) / share - 1


def width_of_gamma(gamma: float) -> float:
    """Relative width sigma_rel of the averaging profile: eq. 16 of arXiv:2312.02696."""
    return math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3))


def gamma_of_width(width: float) -> float:
    """Inverse of `width_of_gamma`: the largest root of g^3 + 7 g^2 + (16 - w^-2) g + 12 - w^-2."""
    square = width**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


class EMA:
    """Average of a module's parameters. Call `update` after every optimiser step.

    Parameters
    ----------
    module : what is averaged; only floating-point entries are.
    gamma : exponent, from `gamma_of_halflife` or `gamma_of_width`.
    """

    def __init__(self, module: nn.Module, gamma: float) -> None:
        self.module = module
        self.gamma = gamma
        self.steps = 0
        named = module.named_parameters(remove_duplicate=False)
        self._learnt = {name: weight for name, weight in named if weight.is_floating_point()}
        self._means = {name: weight.detach().clone() for name, weight in self._learnt.items()}

    @property
    def average(self) -> dict[str, Tensor]:
        """The averages, under the names of the module's state, and the rest of that as it is."""
        return {name: self._means.get(name, value.detach()) for name, value in self.module.state_dict().items()}

    def update(self) -> None:
        """Take the module's present weights into the average."""
        self.steps += 1
        share = 1 - (1 - 1 / self.steps) ** (self.gamma + 1)
        weights: list[Tensor] = list(self._learnt.values())
        means = list(self._means.values())
        if any(mean.device != weight.device for mean, weight in zip(means, weights, strict=True)):
            means = [mean.to(weight.device) for mean, weight in zip(means, weights, strict=True)]
            self._means = dict(zip(self._learnt, means, strict=True))
        with torch.no_grad():  # in a few kernels for all of them
            torch._foreach_lerp_(means, weights, share)

    @contextmanager
    def swap(self) -> Iterator[nn.Module]:
        """Within the context the module holds the average; its own weights come back bit for bit."""
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average)
        try:
            yield self.module
        finally:
            self.module.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: resuming from it continues bit for bit."""
        return {"gamma": self.gamma, "steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.gamma, self.steps = float(state["gamma"]), int(state["steps"])
        for name, mean in self._means.items():
            mean.copy_(state["average"][name])


def _overlap(t_a: NDArray[np.float64], g_a: NDArray[np.float64], t_b: Any, g_b: Any) -> NDArray[np.float64]:
    """Inner product of two averaging profiles (algorithm 3 of arXiv:2312.02696), each of integral 1 on (0, t]."""
    late = np.where(t_a < t_b, g_b, g_a)
    share = np.minimum(t_a, t_b) / np.maximum(t_a, t_b)
    numerator = (g_a + 1) * (g_b + 1) * share**late
    return np.asarray(numerator / ((g_a + g_b + 1) * np.maximum(t_a, t_b)))


def posthoc_weights(steps: Sequence[float], gammas: Sequence[float], step: float, gamma: float) -> NDArray[np.float64]:
    """Weights of stored averages (taken at ``steps`` with ``gammas``) whose sum is nearest to the average wanted.

    Least squares between the profiles (section 3.2 of arXiv:2312.02696).
    """
    t, g = np.asarray(steps, dtype=np.float64), np.asarray(gammas, dtype=np.float64)
    gram = _overlap(t[:, None], g[:, None], t[None], g[None])
    return np.asarray(
        np.linalg.lstsq(gram, _overlap(t, g, float(step), float(gamma)), rcond=1e-13)[0], dtype=np.float64
    )


def reconstruct(snapshots: Sequence[dict[str, Any]], gamma: float, step: float | None = None) -> dict[str, Tensor]:
    """Average of any length from snapshots (`EMA.state_dict`, kept through training, best of two gammas).

    Returns the weights that an EMA with ``gamma`` would hold at ``step`` (default: the last one stored); entries that
    are not floating-point come from the last snapshot. Exact up to how well the stored profiles span the wanted one.
    """
    last = max(snapshots, key=lambda snapshot: int(snapshot["steps"]))
    step = float(last["steps"]) if step is None else step
    steps, gammas = [float(s["steps"]) for s in snapshots], [float(s["gamma"]) for s in snapshots]
    weights = posthoc_weights(steps, gammas, step, gamma)
    return {name: _blend(name, value, snapshots, weights) for name, value in last["average"].items()}


def _blend(name: str, like: Tensor, snapshots: Sequence[dict[str, Any]], weights: NDArray[np.float64]) -> Tensor:
    if not like.is_floating_point():
        return like.clone()
    total = torch.zeros(like.shape, dtype=torch.float64)
    for snapshot, weight in zip(snapshots, weights, strict=True):
        total += float(weight) * snapshot["average"][name].double().cpu()
    return total.to(like)
