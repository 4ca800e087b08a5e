"""Symmetries of the dynamics: shifts along periodic axes and mirror images, with the signs of odd components."""

from collections.abc import Mapping, Sequence

import numpy as np

from sciffusion import config
from sciffusion.conditioners.base import Conditioner
from sciffusion.datasets.draws import Draw

__all__ = ["OFF_GRID", "Arrays", "Signs", "augment", "signs_of"]

Key = tuple[str, ...]  # ("z",), ("valid",), ("inputs", condition, "channels", "vector", "tokens" or "token_mask")
OFF_GRID = ("vector", "tokens", "token_mask")  # arrays that have no grid axes
Arrays = Mapping[Key, np.ndarray]
Signs = Mapping[tuple[Key, str], np.ndarray]  # (key, dim) -> +-1 per channel or feature


def signs_of(
    channels: Sequence[tuple[str, int]],
    target: Mapping[str, config.Variable],
    conditioners: Mapping[str, Conditioner],
    dims: Sequence[str],
) -> Signs:
    """Signs under mirroring along each of ``dims``, of the target's channels and of every input."""
    signs: dict[tuple[Key, str], np.ndarray] = {}
    for dim in dims:
        odd = [dim in target[variable].odd_along for variable, _ in channels]
        signs[("z",), dim] = np.where(odd, -1, 1).astype(np.float32)
        for name, conditioner in conditioners.items():
            signs[("inputs", name, "channels"), dim] = conditioner.parity(dim)
            signs[("inputs", name, "vector"), dim] = conditioner.vector_parity(dim)
    return signs


def augment(arrays: Arrays, draw: Draw, dims: Sequence[str], signs: Signs) -> dict[Key, np.ndarray]:
    """Shift and mirror all fields (channel, *grid) of one sample alike; vectors only take their signs."""
    return {key: _one(key, array, draw, dims, signs) for key, array in arrays.items()}


def _one(key: Key, array: np.ndarray, draw: Draw, dims: Sequence[str], signs: Signs) -> np.ndarray:
    on_grid = key[-1] not in OFF_GRID
    for axis, dim in enumerate(dims):
        if on_grid and draw.roll[axis]:
            array = np.roll(array, draw.roll[axis], axis=1 + axis)
        if draw.mirror[axis]:
            array = np.flip(array, axis=1 + axis) if on_grid else array
            sign = signs.get((key, dim))
            if sign is not None and (sign < 0).any():
                array = array * sign.reshape(-1, *[1] * (array.ndim - 1))
    return array
