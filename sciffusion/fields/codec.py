"""FieldCodec: physical fields <-> the tensors that a denoiser learns, channel by channel.

    t = T(x),   r = t - T(b),   z = (r - m) / s                                                        (1)

with T the variable's transform, b the baseline (0 for a channel without one), m the mean residual of the training
cases, shrunk towards the channel's mean, and s the channel's area-weighted sd, so that z has sd 1. ``decode`` inverts
(1), lands in the variable's range, makes pole rows single-valued where the training data's are, restores the cells
that are always missing, and is float32 unless the data were float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.fields.arrays import array_from_json, array_to_json, attributes_to_json
from sciffusion.fields.axes import Auxiliary
from sciffusion.fields.grid import Grid
from sciffusion.fields.poles import averaged, pole_rows
from sciffusion.fields.resample import SeparableMap
from sciffusion.fields.statistics import fold_of
from sciffusion.fields.transforms import Transform
from sciffusion.fields.variables import TargetVariable, stack, unstack

__all__ = ["FieldCodec", "Window"]

Window = Sequence[slice] | None


@dataclass(frozen=True, eq=False)
class FieldCodec:
    """Equation (1) with its constants, made by `sciffusion.fields.fit.fit_codec`.

    mean : float32 (channel, *grid), or (channel, 1, ...) where only channel means were taken; sd : float64 (channel,)
    valid : Bool (channel, *grid), or None when no cell is always missing
    baseline_mean : float64 (channel,), stands in for T(b) where b is missing; NaN for channels without baseline
    single_valued : Bool (channel, 2), whether the (first, last) row is a pole with one value
    held_out : float32 (fold, channel, *grid), the mean without each fold of the training cases; None after training
    shrinkage : float64 (channel,); leading_rms : rms of the leading mode of z; cases : number seen
    """

    variables: tuple[TargetVariable, ...]
    grid: Grid
    mean: np.ndarray
    sd: np.ndarray
    valid: np.ndarray | None
    baseline_mean: np.ndarray
    single_valued: np.ndarray
    shrinkage: np.ndarray
    leading_rms: float
    cases: int
    coords: Mapping[str, Auxiliary] = field(default_factory=dict)
    held_out: np.ndarray | None = None

    @cached_property
    def channels(self) -> list[tuple[str, int]]:
        """(variable, index within the variable) of every channel."""
        return [(variable.name, index) for variable in self.variables for index in range(variable.channels)]

    @property
    def names(self) -> list[str]:
        """Names of the variables."""
        return [variable.name for variable in self.variables]

    @cached_property
    def parts(self) -> list[tuple[TargetVariable, slice]]:
        """Each variable with its channels."""
        ends = np.cumsum([0, *(variable.channels for variable in self.variables)])
        return [(v, slice(int(a), int(b))) for v, a, b in zip(self.variables, ends[:-1], ends[1:], strict=True)]

    @cached_property
    def folds(self) -> list["FieldCodec"]:
        """The codec of each fold of the training cases, whose mean these cases had no part in; empty after training."""
        means = [] if self.held_out is None else list(self.held_out)
        return [replace(self, mean=mean, held_out=None) for mean in means]

    def of_training_case(self, index: int, count: int) -> "FieldCodec":
        """The codec for training case ``index`` of ``count``."""
        return self.folds[fold_of(index, count, len(self.folds))] if self.folds else self

    def without_folds(self) -> "FieldCodec":
        """As it is kept after training."""
        return replace(self, held_out=None)

    def stack(self, ds: xr.Dataset, window: Window = None) -> np.ndarray:
        """One case of ``ds`` as float32 (channel, *grid) in physical units, NaN where missing."""
        return stack(ds, self.variables, self.grid, window)

    def encode(
        self, x: np.ndarray | xr.Dataset, baseline: np.ndarray | None = None, window: Window = None
    ) -> tuple[Tensor, Tensor]:
        """Equation (1) for one case, or for a ``window`` of it.

        Parameters
        ----------
        x
            Physical units, (channel, *grid) or (channel, *window), or a Dataset of one case.
        baseline
            Physical units, in the same two shapes; channels without baseline are ignored.
        window
            Slices of the grid, one per axis.

        Returns
        -------
        z : float32 (channel, *window), 0 where ``x`` is missing; present : Bool, where ``x`` is not.
        """
        fields = self.stack(x, window) if isinstance(x, xr.Dataset) else self._cut(x, window)
        t = self.transform(fields.astype(np.float64))
        z = (t - self._offset(baseline, window)) / self._column(self.sd)
        present = np.isfinite(z)
        return torch.from_numpy(np.where(present, z, 0).astype(np.float32)), torch.from_numpy(present)

    def valid_cells(self, window: Window = None) -> Tensor:
        """Bool (channel, *window): the cells that exist; the model's mask."""
        if self.valid is not None:
            return torch.from_numpy(self._cut(self.valid, window).copy())
        everywhere = np.broadcast_to(np.ones((), bool), (len(self.channels), *self.grid.shape))
        return torch.from_numpy(self._cut(everywhere, window).copy())

    def decode(self, z: Tensor, baseline: np.ndarray | None = None, window: Window = None) -> dict[str, np.ndarray]:
        """Physical fields of ``z`` (batch, channel, *window), per variable (batch, *channel dims, *window).

        ``baseline`` is that of the case, (channel, *grid or *window), or one per sample (batch, channel, ...).
        """
        out = {v.name: np.empty((len(z), *v.channel_shape, *z.shape[2:]), v.dtype) for v in self.variables}
        for sample, values in enumerate(z.detach().cpu()):
            own = baseline[sample] if baseline is not None and baseline.ndim > z.ndim - 1 else baseline
            t = values.double().numpy() * self._column(self.sd) + self._offset(own, window)
            x = self._on_poles(self._inverse(self._masked(t, window)), window)
            for v, part in self.parts:
                out[v.name][sample] = x[part].reshape(out[v.name].shape[1:])
        return out

    def single_valued_poles(self, z: Tensor, baseline: np.ndarray | None = None) -> Tensor:
        """``z`` (batch, channel, *grid) with pole rows that decode to one value, where the training data's do.

        To be applied before a projection; `projection_weights` keep these rows fixed in it.
        """
        result, sd = z.clone(), self._column(self.sd)
        for end, row in pole_rows(self.grid).items():
            chosen, offset = np.flatnonzero(self.single_valued[:, end]), self._offset(baseline, row)
            place: Any = (slice(None), slice(None), *row)
            t = self._masked(z[place].detach().cpu().double().numpy() * sd + offset, row)
            x = averaged(self._inverse(t), self.grid)
            poles = torch.from_numpy(np.nan_to_num((self.transform(x) - offset) / sd)).to(z)
            for channel in chosen:
                own: Any = (slice(None), int(channel), *row)
                result[own] = poles[:, int(channel)]
        return result

    def projection_weights(self) -> tuple[Tensor, ...]:
        """Cell weights per axis, for ``operators.project``; infinite at pole rows that have to stay single-valued."""
        weights = [self.grid.axis_measure(axis) for axis in range(self.grid.rank)]
        weights = [weight / weight.mean() for weight in weights]
        if self.grid.latitude_axis is not None:
            for end in np.flatnonzero(self.single_valued.any(axis=0)):
                weights[self.grid.latitude_axis][-int(end)] = np.inf
        return tuple(torch.from_numpy(weight) for weight in weights)

    def pull_back(
        self,
        mapping: SeparableMap,
        y: np.ndarray,
        baseline: np.ndarray | None = None,
        channels: Sequence[int] | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Turn ``C x = y`` in physical units into ``C z = y'``: y' = (slope y + offset - C(m + T(b))) / s per channel.

        Holds for fields whose pole rows are single-valued where they have to be (`single_valued_poles`). C takes means
        over valid cells and its rows sum to 1, so the matrices stay the same. Only ``standardise`` is affine.

        Parameters
        ----------
        mapping
            C, from the fine grid to a coarse one.
        y
            Physical units, (len(channels), *coarse); NaN where nothing is known, and then so is y'.
        baseline
            As for `decode`; where it is one per sample, so are y' (batch, channel, *coarse).
        channels
            Which channels ``y`` is of; all of them by default.

        Returns
        -------
        The matrices of C, float64 (coarse, fine) per axis, for ``operators.Separable``; y', float64 (channel, *coarse).
        Raises NotAffine when a channel's transform is curved.
        """
        chosen = list(range(len(self.channels)) if channels is None else channels)
        lines = np.array([self._transform_of(channel).slope_and_offset() for channel in chosen])
        slope, constant = (self._column(line) for line in lines.T)
        valid = None if self.valid is None else self.valid[chosen]
        offset = self._offset(baseline, None)
        offset = np.broadcast_to(offset, (*offset.shape[: -self.grid.rank - 1], len(self.sd), *self.grid.shape))
        offset = np.take(offset, chosen, axis=-self.grid.rank - 1)
        pulled = (slope * y + constant - mapping.masked(offset, valid)) / self._column(self.sd[chosen])
        return mapping.tensors(), torch.from_numpy(pulled)

    def dataset(self, decoded: Mapping[str, np.ndarray], leading: Mapping[str, Any]) -> xr.Dataset:
        """Decoded arrays as a Dataset: dims (*leading, *those of the target in its own order), coords, attributes.

        ``leading`` maps each leading dim to its coordinate: an array, an xarray variable with attributes, or None.
        """
        return unstack(decoded, leading, self.variables, self.grid, self.coords)

    def template(self, leading: Mapping[str, Any]) -> xr.Dataset:
        """What `dataset` would give, with zeros that take no memory: dims, sizes, dtypes, coordinates, attributes.

        ``leading`` as for `dataset`, but every dim needs a coordinate.
        """
        sizes = tuple(len(values) for values in leading.values())
        shapes = {v.name: (*sizes, *v.channel_shape, *self.grid.shape) for v in self.variables}
        zeros = {v.name: np.broadcast_to(np.zeros((), v.dtype), shapes[v.name]) for v in self.variables}
        return self.dataset(zeros, leading)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything, as (plain JSON, arrays)."""
        entry = {
            "variables": [variable.to_json() for variable in self.variables],
            "grid": self.grid.to_json(),
            "coords": {n: [list(d), array_to_json(v), attributes_to_json(a)] for n, (d, v, a) in self.coords.items()},
            "leading_rms": self.leading_rms,
            "cases": self.cases,
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        return entry, arrays

    @classmethod
    def from_state(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `state`."""
        return cls(
            variables=tuple(TargetVariable.from_json(variable) for variable in entry["variables"]),
            grid=Grid.from_json(entry["grid"]),
            coords={n: (tuple(d), array_from_json(v), dict(a)) for n, (d, v, a) in entry["coords"].items()},
            leading_rms=float(entry["leading_rms"]),
            cases=int(entry["cases"]),
            **{name: arrays.get(name) for name in _ARRAYS},  # type: ignore[arg-type]
        )

    def transform(self, x: np.ndarray) -> np.ndarray:
        """T of (..., channel, *window) in physical units."""
        return self._per_variable(x, "forward")

    def _inverse(self, t: np.ndarray) -> np.ndarray:
        return self._per_variable(t, "inverse")

    def _per_variable(self, x: np.ndarray, direction: str) -> np.ndarray:
        axis = x.ndim - 1 - self.grid.rank
        before = (slice(None),) * axis
        parts = [getattr(v.transform, direction)(x[(*before, part)]) for v, part in self.parts]
        return np.concatenate(parts, axis=axis)

    def _offset(self, baseline: np.ndarray | None, window: Window) -> np.ndarray:
        """What is added to s z: m + T(b), (channel, *window) or (batch, channel, *window)."""
        mean = self._cut(self.mean, window).astype(np.float64)
        has = ~np.isnan(self.baseline_mean)
        if not has.any():
            return mean
        if baseline is None:
            names = ", ".join(sorted({self.channels[int(i)][0] for i in np.flatnonzero(has)}))
            raise ValueError(f"{names} were trained as residuals to a baseline: give it")
        t = self.transform(self._cut(baseline, window).astype(np.float64))
        t = np.where(np.isnan(t), self._column(np.where(has, self.baseline_mean, 0)), t)
        return mean + np.where(self._column(has), t, 0)

    def _cut(self, array: np.ndarray, window: Window) -> np.ndarray:
        """The window of an array on the grid; one that has the window's shape already stays as it is."""
        if window is None or array.shape[-self.grid.rank :] != self.grid.shape:
            return array
        place: Any = (..., *window)
        cut: np.ndarray = array[place]
        return cut

    def _column(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *[1] * self.grid.rank)

    def _transform_of(self, channel: int) -> Transform:
        return next(v.transform for v, part in self.parts if part.start <= channel < part.stop)

    def _on_poles(self, x: np.ndarray, window: Window) -> np.ndarray:
        """Replace pole rows of (channel, *window), in place, by their mean in channels where they have one value."""
        for end, row in pole_rows(self.grid, window).items():
            place: Any = (self.single_valued[:, end], *row)
            x[place] = np.where(np.isnan(x[place]), np.nan, averaged(x[place], self.grid))
        return x

    def _masked(self, t: np.ndarray, window: Window) -> np.ndarray:
        """``t`` (..., channel, *window) with NaN in the cells that never exist."""
        return t if self.valid is None else np.where(self._cut(self.valid, window), t, np.nan)


_ARRAYS = ("mean", "sd", "valid", "baseline_mean", "single_valued", "shrinkage", "held_out")
