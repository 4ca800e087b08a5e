"""Fitting a codec: one pass over the training cases, in memory that does not depend on their number."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Literal

import numpy as np

from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import Auxiliary
from sciffusion.fields.codec import FieldCodec, Window
from sciffusion.fields.grid import Grid
from sciffusion.fields.poles import is_single, pole_rows
from sciffusion.fields.statistics import FOLDS, FoldMoments, Scaling, Sketch, Totals
from sciffusion.fields.variables import TargetVariable

__all__ = ["CodecFit", "fit_codec"]

Pair = (
    tuple[np.ndarray, np.ndarray | None]
    | tuple[np.ndarray, np.ndarray | None, Window]
    | tuple[np.ndarray, np.ndarray | None, Window, int]
)
Shrinkage = float | Literal["fit"]
_HEAD = 8  # cases from which open parameters of transforms are chosen


def fit_codec(
    pairs: Iterable[Pair] | Callable[[], Iterable[Pair]],
    variables: Sequence[TargetVariable],
    grid: Grid,
    *,
    shrinkage: Shrinkage = "fit",
    per_cell: bool = True,
    looks: Iterable[tuple[np.ndarray, Window]] = (),
    coords: Mapping[str, Auxiliary] | None = None,
) -> FieldCodec:
    """Fit equation (1) of `sciffusion.fields.codec` to training cases.

    Parameters
    ----------
    pairs
        (x, baseline) per case, with or without a window and a fold behind: x float32 (channel, *grid or *window) in
        physical units, NaN where missing; baseline likewise or None, all NaN in channels without one. An iterator or a
        callable giving one.
    variables, grid, coords
        What `target_variables`, `Grid.from_dataset` and `channel_coords` say of the target.
    shrinkage
        Of the mean residual per cell towards the channel's mean: 0 none of it is kept, 1 all; "fit": what predicts each
        fold best from the others. Folds that are not given take the cases in turn.
    per_cell
        False keeps means per channel only: for domains of which there is no room for two float64 per cell.
    looks
        More (x, window) that only show which cells exist, where windows in ``pairs`` leave parts of the grid unseen. A
        cell that nobody looked at counts as existing.

    Raises SciffusionError for a channel that is constant or always missing.
    """
    stream = iter(pairs() if callable(pairs) else pairs)
    head = list(islice(stream, _HEAD))
    if not head:
        raise SciffusionError("there is no training case", "check split.train against the target's labels")
    fit = CodecFit(_fitted(variables, [pair[0] for pair in head]), grid, _residual(head), per_cell=per_cell)
    for pair in chain(head, stream):
        fit.update(*pair)
    for x, window in looks:
        fit.look(x, window)
    return fit.codec(shrinkage, coords)


def _fitted(variables: Sequence[TargetVariable], fields: Sequence[np.ndarray]) -> tuple[TargetVariable, ...]:
    """Variables with the open parameters of their transforms chosen from the first cases."""
    fitted, start = [], 0
    for variable in variables:
        sample = np.concatenate([x[start : start + variable.channels].ravel() for x in fields])
        try:
            fitted.append(replace(variable, transform=variable.transform.fitted(sample)))
        except SciffusionError as error:
            raise SciffusionError(f"{variable.name}: {error.what}", error.mend) from None
        start += variable.channels
    return tuple(fitted)


def _residual(pairs: Sequence[Pair]) -> np.ndarray:
    """Bool (channel,): whether a channel has a baseline in any of the first cases."""
    found = np.zeros(len(pairs[0][0]), bool)
    for _, baseline, *_ in pairs:
        if baseline is not None:
            found |= np.isfinite(baseline).reshape(len(found), -1).any(axis=1)
    return found


class CodecFit:
    """Running statistics of residuals: `update` with every case, then ask for the `codec`.

    ``residual`` Bool (channel,) says which channels have a baseline.
    """

    def __init__(
        self, variables: Sequence[TargetVariable], grid: Grid, residual: np.ndarray, *, per_cell: bool = True
    ) -> None:
        n = len(residual)
        self.grid, self.residual, self.cases = grid, residual, 0
        # Without mean and scale a codec is the transforms alone.
        self._bare = FieldCodec(
            variables=tuple(variables),
            grid=grid,
            mean=np.zeros((n, *[1] * grid.rank), np.float32),
            sd=np.ones(n),
            valid=None,
            baseline_mean=np.full(n, np.nan),
            single_valued=np.zeros((n, 2), bool),
            shrinkage=np.zeros(n),
            leading_rms=1.0,
            cases=0,
        )
        self._moments = FoldMoments((n, *grid.shape)) if per_cell else None
        self._totals, self._baselines = Totals.zeros(n), Totals.zeros(n)
        self._measures = [grid.axis_measure(axis) / grid.axis_measure(axis).mean() for axis in range(grid.rank)]
        self._found, self._looked = np.zeros((n, *grid.shape), bool), np.zeros(grid.shape, bool)
        self._single = {0: np.zeros(n, bool), 1: np.zeros(n, bool)}
        self._poles_seen: set[int] = set()
        self._sketch = Sketch()

    def update(
        self, x: np.ndarray, baseline: np.ndarray | None = None, window: Window = None, fold: int | None = None
    ) -> None:
        """Take in one case, as `fit_codec` describes it."""
        if self._moments is not None and x.shape[1:] != self.grid.shape:
            raise ValueError(f"means per cell need whole fields {self.grid.shape}, not {x.shape[1:]}: per_cell=False")
        self.look(x, window)
        r, weights = self._bare.transform(x.astype(np.float64)), self._weights(window)
        if baseline is not None and self.residual.any():
            b = self._bare.transform(baseline.astype(np.float64))
            b[~self.residual] = 0.0
            self._baselines.update(b, weights)
            r = r - b
        if self._moments is not None:
            self._moments.update(r, self.cases % FOLDS if fold is None else fold)
        self._totals.update(r, weights)
        self._sketch.update(r)
        self.cases += 1

    def codec(self, shrinkage: Shrinkage = "fit", coords: Mapping[str, Auxiliary] | None = None) -> FieldCodec:
        """The codec of what was taken in. Raises SciffusionError for constant and for missing channels."""
        scaling = self._scaling(shrinkage)
        valid = self._found | ~self._looked
        found = self._found.reshape(len(valid), -1).sum(axis=1)
        self._refuse(found == 0, "is missing everywhere in the training cases")
        self._refuse(~(scaling.sd > 0), "is constant over the training cases")
        return replace(
            self._bare,
            mean=scaling.mean,
            sd=scaling.sd,
            valid=None if valid.all() else valid,
            baseline_mean=np.where(self.residual, self._baselines.mean, np.nan),
            single_valued=np.stack([self._single[0], self._single[1]], axis=1),
            shrinkage=scaling.shrinkage,
            held_out=scaling.held_out,
            leading_rms=self._sketch.leading_rms(scaling.mean, scaling.sd),
            cases=self.cases,
            coords=dict(coords or {}),
        )

    def _scaling(self, shrinkage: Shrinkage) -> Scaling:
        if self._moments is not None:
            return self._moments.scaling(self.grid.cell_area(), shrinkage)
        return self._totals.scaling(self.grid.rank)

    def look(self, x: np.ndarray, window: Window) -> None:
        """Note which cells exist and whether pole rows have one value."""
        place = (slice(None),) * self.grid.rank if window is None else tuple(window)
        self._looked[place] = True
        self._found[(slice(None), *place)] |= np.isfinite(x)
        for end, row in pole_rows(self.grid, window).items():
            single = is_single(x[(slice(None), *row)], self.grid)
            self._single[end] = single & self._single[end] if end in self._poles_seen else single
            self._poles_seen.add(end)

    def _weights(self, window: Window) -> np.ndarray:
        """Cell areas over their mean on the whole grid, (*window)."""
        area: np.ndarray = np.ones(())
        for measure, cut in zip(self._measures, window or [slice(None)] * self.grid.rank, strict=True):
            area = np.multiply.outer(area, measure[cut])
        return area

    def _refuse(self, bad: np.ndarray, why: str) -> None:
        if bad.any():
            name, index = self._bare.channels[int(np.flatnonzero(bad)[0])]
            raise SciffusionError(f"{name} (channel {index}) {why}", "leave it out of target.variables, or check it")
