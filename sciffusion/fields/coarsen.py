"""Coarse-graining that conserves, refinement, and regridding, as separable maps between grids.

Coarse-graining is the mean over the overlap of cells: C_ab = |coarse_a n fine_b| / |coarse_a|, with lengths on the
plane and differences of sin(latitude) on the sphere, so integrals are kept and factors need not divide the grid.
"""

from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.sparse import csr_array, diags_array, eye_array

from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import wraps_around
from sciffusion.fields.grid import Grid
from sciffusion.fields.resample import SeparableMap

__all__ = ["Interpolation", "conservative", "refine", "regrid"]

Interpolation = Literal["bilinear", "bicubic", "conservative"]
_LARGE = 2**28  # bytes that `regrid` reads at once


def conservative(fine: Grid, coarse: Grid) -> SeparableMap:
    """Means of a field on ``fine`` over the cells of ``coarse``; rows sum to 1.

    A coarse cell that ``fine`` covers in part takes the mean of that part; one that it does not cover at all raises
    SciffusionError. The order and direction of the dims are each grid's own; dims are matched by position.
    """
    return SeparableMap(tuple(_means(fine, coarse, axis) for axis in range(fine.rank)))


def refine(coarse: Grid, fine: Grid, method: Interpolation = "bilinear") -> SeparableMap:
    """Interpolate a field on ``coarse`` to ``fine``; rows sum to 1.

    bilinear: between the centres, constant beyond the outermost ones. bicubic: cubic Hermite with the slopes of
    parabolas through three neighbours (Catmull-Rom where the spacing is even), straight beyond the outermost centres.
    conservative: each fine cell takes the coarse cell it lies in; where a fine cell straddles two, the values are
    corrected so that coarse-graining still gives the coarse field back. Periodic axes wrap around; nothing crosses a
    pole, which no separable map can.
    """
    if method == "conservative":
        return SeparableMap(tuple(_right_inverse(coarse, fine, axis) for axis in range(fine.rank)))
    return SeparableMap(tuple(_interpolation(coarse, fine, axis, method) for axis in range(fine.rank)))


def regrid(ds: xr.Dataset, grid: Grid, source: Grid | None = None, method: Interpolation = "bilinear") -> xr.Dataset:
    """Bring every variable of ``ds`` that has all dims of ``grid`` to ``grid``; those that have none are left alone.

    Per axis: means over cells where the source is the finer one, else ``method``. NaN cells are left out of the means.
    ``source`` is the grid of ``ds``, by default read from its coordinates. Attributes are kept.
    """
    source = source or _grid_of(ds, grid)
    if source.same_cells(grid):
        return ds.drop_vars([dim for dim in grid.dims if dim in ds.coords]).assign_coords(grid.coords_dataset().coords)
    _check_cover(source, grid)
    matrices = []
    for axis in range(grid.rank):
        finer = source.spacing[axis] <= grid.spacing[axis] * (1 + 1e-6)
        step = conservative if finer else lambda a, b: refine(a, b, method)
        matrices.append(step(source, grid).matrices[axis])
    mapping = SeparableMap(tuple(matrices))
    complete = [name for name, array in ds.data_vars.items() if set(grid.dims) <= set(array.dims)]
    others = [name for name, array in ds.data_vars.items() if not set(grid.dims) & set(array.dims)]
    fields = {name: _mapped(ds[name], mapping, grid) for name in complete}
    result = xr.Dataset({name: ds[name] for name in others} | fields, attrs=ds.attrs)
    return result.assign_coords(grid.coords_dataset().coords)


def _mapped(array: xr.DataArray, mapping: SeparableMap, grid: Grid) -> xr.DataArray:
    """Apply ``mapping`` to an array, piece by piece and only when asked for where it is large or already lazy."""
    dims = list(grid.dims)
    lazy = array.chunk({dim: -1 if dim in dims else 1 for dim in array.dims}) if array.nbytes > _LARGE else array
    mapped: xr.DataArray = xr.apply_ufunc(
        mapping.masked,
        lazy,
        input_core_dims=[dims],
        output_core_dims=[dims],
        exclude_dims=set(dims),
        dask="parallelized",
        output_dtypes=[array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)],
        dask_gufunc_kwargs={"output_sizes": dict(zip(dims, grid.shape, strict=True)), "allow_rechunk": True},
        keep_attrs=True,
    )
    return mapped.transpose(*array.dims)


def _grid_of(ds: xr.Dataset, grid: Grid) -> Grid:
    """The grid of a dataset with the same kind of dims as ``grid``; longitudes are looked at anew."""
    periodic = [dim for dim, wraps in zip(grid.dims, grid.periodic, strict=True) if wraps]
    if grid.longitude_axis is not None and (lon := grid.dims[grid.longitude_axis]) in ds.coords:
        periodic = [dim for dim in periodic if dim != lon] + [lon] * wraps_around(ds[lon].values)
    return Grid.from_dataset(ds, grid.dims, grid.geometry, periodic, like=grid)


def _check_cover(source: Grid, grid: Grid) -> None:
    """Raise SciffusionError where ``grid`` reaches beyond ``source`` by more than one of the source's cells."""
    for axis, dim in enumerate(grid.dims):
        if source.periodic[axis]:
            continue
        low, high = np.sort(source.axis_bounds(axis)[[0, -1]])
        edges = _unwrapped(grid.axis_bounds(axis), source, axis)
        margin = source.spacing[axis]
        if edges.min() < low - margin or edges.max() > high + margin:
            raise SciffusionError(
                f"{dim!r} runs from {low:g} to {high:g} in the source, but from {edges.min():g} to {edges.max():g} "
                "in the grid asked for",
                "give data that cover the whole domain",
            )


def _unwrapped(values: np.ndarray, source: Grid, axis: int) -> np.ndarray:
    """Shift coordinates by whole periods so that their middle is nearest to the source's."""
    period = source.period(axis)
    if period is None:
        return values
    middle = source.axis_bounds(axis)[[0, -1]].mean()
    return np.asarray(values - period * np.round((values.mean() - middle) / period))


def _overlaps(fine: Grid, coarse: Grid, axis: int) -> csr_array:
    """Measure of the overlap of cells, (coarse, fine); periodic copies are added up."""
    period = fine.period(axis) or coarse.period(axis)
    target = coarse.axis_bounds(axis)
    total = csr_array((coarse.shape[axis], fine.shape[axis]))
    for shift in [0.0] if period is None else period * np.arange(-2.0, 3.0):
        source = fine.axis_bounds(axis) + shift
        # Between two neighbouring edges of either grid there is one cell of each.
        cuts = np.unique(np.concatenate([source, target]))
        cuts = cuts[(cuts >= max(source.min(), target.min())) & (cuts <= min(source.max(), target.max()))]
        middles, lengths = (cuts[1:] + cuts[:-1]) / 2, np.diff(fine.measured(axis, cuts))
        if len(middles):
            cells = _cell_of(middles, target), _cell_of(middles, source)
            total = total + csr_array((lengths, cells), shape=total.shape)
    return total


def _cell_of(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of the cell that each point lies in."""
    rising = edges if edges[0] < edges[-1] else edges[::-1]
    cells: np.ndarray = np.searchsorted(rising, points, side="right") - 1
    return cells if rising is edges else len(edges) - 2 - cells


def _means(fine: Grid, coarse: Grid, axis: int) -> csr_array:
    overlap = _overlaps(fine, coarse, axis).tocsr()
    # Edges that agree but for rounding would leave slivers.
    smaller = np.minimum(fine.axis_measure(axis).min(), coarse.axis_measure(axis).min())
    overlap.data[overlap.data < 1e-9 * smaller] = 0.0
    overlap.eliminate_zeros()
    total = np.asarray(overlap.sum(axis=1)).ravel()
    if (total == 0).any():
        raise SciffusionError(
            f"{coarse.dims[axis]!r}: {np.count_nonzero(total == 0)} of {len(total)} cells lie outside the other grid",
            "give fields that overlap in space",
        )
    return csr_array(diags_array(1 / total) @ overlap)


def _right_inverse(coarse: Grid, fine: Grid, axis: int) -> csr_array:
    """R with C R = 1: the piecewise constant R0, times (C R0)^-1 where fine cells straddle coarse edges."""
    means, constant = _means(fine, coarse, axis), _means(coarse, fine, axis)
    # What coarsening loses: sparse, its rows sum to 0.
    lost = csr_array(eye_array(coarse.shape[axis]) - means @ constant)
    # Half lost or more: the "fine" grid is hardly finer, and there is no inverse.
    if not 1e-12 < abs(lost).max() < 0.5:
        return constant
    # (1 - E)^-1 = (1 + E)(1 + E^2)(1 + E^4)...
    inverse, power = csr_array(eye_array(coarse.shape[axis])), lost
    while abs(power).max() > 1e-16:
        inverse, power = _pruned(inverse + inverse @ power), _pruned(power @ power)
    return _pruned(constant @ inverse)


def _pruned(matrix: csr_array) -> csr_array:
    matrix.data[np.abs(matrix.data) < 1e-18] = 0.0
    matrix.eliminate_zeros()
    return csr_array(matrix)


def _interpolation(coarse: Grid, fine: Grid, axis: int, method: Interpolation) -> csr_array:
    """Interpolation matrix (fine, coarse) along one axis."""
    knots, points, period = coarse.positions(axis), fine.positions(axis), coarse.period(axis)
    columns = np.argsort(knots)
    knots = knots[columns]
    if coarse.periodic[axis] and period is not None:
        # Two copies on either side give every point its whole stencil.
        points = knots[0] + np.mod(points - knots[0], period)
        knots = np.concatenate([knots + shift * period for shift in range(-2, 3)])
        columns = np.tile(columns, 5)
    else:
        points = _unwrapped(points, coarse, axis)
    weights = (_linear if method == "bilinear" or len(knots) < 3 else _cubic)(knots, points)
    fold = csr_array((np.ones(len(columns)), (np.arange(len(columns)), columns)), (len(columns), coarse.shape[axis]))
    folded = csr_array(weights @ fold)
    folded.eliminate_zeros()
    return folded


def _linear(knots: np.ndarray, points: np.ndarray) -> csr_array:
    """Weights (points, knots) of linear interpolation, constant outside."""
    if len(knots) == 1:
        return csr_array(np.ones((len(points), 1)))
    left = _left(knots, points)
    t = np.clip((points - knots[left]) / np.diff(knots)[left], 0.0, 1.0)
    return csr_array(_scatter(1 - t, left, len(knots)) + _scatter(t, left + 1, len(knots)))


def _cubic(knots: np.ndarray, points: np.ndarray) -> csr_array:
    """Weights (points, knots) of cubic Hermite interpolation; outside, straight on for at most half a step."""
    n, steps, slopes = len(knots), np.diff(knots), _slopes(knots)
    points = np.clip(points, knots[0] - steps[0] / 2, knots[-1] + steps[-1] / 2)
    left = _left(knots, points)
    h = steps[left]
    t = (points - knots[left]) / h
    inside = np.clip(t, 0.0, 1.0)
    values = _scatter((1 + 2 * inside) * (1 - inside) ** 2, left, n) + _scatter(
        inside**2 * (3 - 2 * inside), left + 1, n
    )
    before = h * (inside * (1 - inside) ** 2 + np.minimum(t, 0.0))
    after = h * (inside**2 * (inside - 1) + np.maximum(t - 1, 0.0))
    return csr_array(values + diags_array(before) @ slopes[left] + diags_array(after) @ slopes[left + 1])


def _slopes(knots: np.ndarray) -> csr_array:
    """Weights (knots, knots) of the slope at each knot: of the parabola through three knots; one-sided at the ends."""
    n, h = len(knots), np.diff(knots)
    before, after = h[:-1], h[1:]
    lower = np.append(-after / (before * (before + after)), -1 / h[-1])
    upper = np.insert(before / (after * (before + after)), 0, 1 / h[0])
    middle = np.concatenate([[-1 / h[0]], (after - before) / (before * after), [1 / h[-1]]])
    diagonals: Any = [lower, middle, upper]
    return csr_array(diags_array(diagonals, offsets=[-1, 0, 1], shape=(n, n)))


def _left(knots: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Index of the interval of ``knots`` that each point lies in, or is nearest to."""
    return np.clip(np.searchsorted(knots, points, side="right") - 1, 0, len(knots) - 2)


def _scatter(weights: np.ndarray, columns: np.ndarray, width: int) -> csr_array:
    return csr_array((weights, (np.arange(len(columns)), columns)), shape=(len(columns), width))
