"""Physics and trust: balances, conservation, positivity, coverage under conditions, memorisation."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.copies import nearest
from sciffusion.evaluation.layout import Layout, member_dim
from sciffusion.evaluation.source import Source
from sciffusion.fields.coarsen import conservative
from sciffusion.fields.grid import Grid
from sciffusion.fields.roles import geometry_of, wraps_around

__all__ = ["balance_residual", "conditional_coverage", "conservation_error", "positivity", "training_distance"]


def balance_residual(
    ensemble: xr.Dataset,
    reference: xr.Dataset,
    residual: Callable[[xr.Dataset], xr.DataArray],
    over: Sequence[str] | None = None,
) -> xr.Dataset:
    """How well a physical balance holds in the members, beside how well it holds in the truth.

    ``residual`` takes a Dataset and returns what should be zero, for instance the divergence of the velocity or the
    departure from geostrophy. Returns the root mean square over ``over`` (default: all dims but the ensemble's) as
    ``members`` (member, ...) and ``truth``, and ``ratio`` of the root of the members' mean square to the truth's. Data
    rarely satisfy a discrete balance exactly, so the truth is the yardstick, not zero.
    """
    axis = member_dim(ensemble)
    theirs, real = residual(ensemble), residual(reference)
    dims = [dim for dim in real.dims if over is None or dim in over]
    members, truth = (xr.ufuncs.sqrt((one**2).mean(dims)) for one in (theirs, real))
    mean = members if axis is None or axis not in members.dims else xr.ufuncs.sqrt((members**2).mean(axis))
    return xr.Dataset({"members": members, "truth": truth, "ratio": mean / truth})


def conservation_error(fine: xr.DataArray, coarse: xr.DataArray) -> xr.DataArray:
    """Conservative coarsening of ``fine`` less ``coarse``, on the coarse grid, other dims aligned by their labels.

    The cells of ``coarse`` tile those of ``fine`` (dims of the same names). Zero where every member keeps the integrals
    of its input. Raises SciffusionError when they do not tile.
    """
    name = "field"
    large, small = fine.to_dataset(name=name), coarse.to_dataset(name=name)
    layout = Layout.of(large, [name])
    small = Source.renamed(small, layout)
    wraps = [dim for dim in layout.grid if wraps_around(large, dim)]
    grid = Grid.from_dataset(large, layout.grid, geometry_of(large, layout.grid), wraps)
    missing = [dim for dim in grid.dims if dim not in small.dims]
    if missing:
        raise SciffusionError(
            f"the coarse data have no dimension {missing[0]!r}", "rename their dims to the fine data's"
        )
    target = Grid.from_dataset(small, grid.dims, grid.geometry, wraps, like=grid)
    coarsen = conservative(grid, target).masked
    own = {dim: f"coarse_{dim}" for dim in grid.dims}
    means = xr.apply_ufunc(
        coarsen,
        large[name],
        input_core_dims=[list(grid.dims)],
        output_core_dims=[list(own.values())],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {own[d]: n for d, n in zip(grid.dims, target.shape, strict=True)}},
    )
    means = means.rename({new: old for old, new in own.items()})
    given = small[name].drop_vars([dim for dim in grid.dims if dim in small.coords])
    error: xr.DataArray = means - given
    return error.assign_attrs(long_name="coarsened fine field less coarse field", **_units(fine))


def positivity(field: xr.DataArray, dims: Sequence[str] | None = None, *, least: float = 0.0) -> xr.Dataset:
    """Share of values below ``least`` and the lowest value, over ``dims`` (default: all)."""
    over = list(field.dims if dims is None else dims)
    below = (field < least).where(field.notnull()).mean(over)
    return xr.Dataset(
        {
            "share_below": below.assign_attrs(long_name=f"share of values below {least:g}", units="1"),
            "lowest": field.min(over).assign_attrs(long_name="lowest value", **_units(field)),
        }
    )


def conditional_coverage(
    ensemble: xr.DataArray,
    reference: xr.DataArray,
    by: xr.DataArray,
    edges: Sequence[float],
    member: str | None = None,
) -> xr.Dataset:
    """How often the truth lies between the lowest and the highest member, in classes of ``by``.

    ``by`` is a regime index, the terrain height, the coarse input: anything that neither truth nor members are part of.
    Classes of the truth or of the ensemble mean are biased by construction; for intensity take the mean of members and
    truth together (Bellier et al. 2017, doi:10.1175/MWR-D-16-0487.1). It broadcasts against the reference and is cut
    by ``edges``.

    Returns
    -------
    Dataset by class with ``coverage``, ``expected`` = (m - 1) / (m + 1) for exchangeable members, ``below`` and
    ``above`` (each 1 / (m + 1) if right), ``width`` (mean range of the members) and ``count``.
    """
    axis = member_dim(ensemble.to_dataset(name="field"), member)
    if axis is None:
        raise SciffusionError("there is no ensemble dimension", "name it: member=")
    low, high, m = ensemble.min(axis), ensemble.max(axis), ensemble.sizes[axis]
    known = reference.notnull() & low.notnull() & by.notnull()
    parts = {"below": reference < low, "above": reference > high, "width": high - low}
    bins = np.asarray(edges, dtype=np.float64)
    place = xr.apply_ufunc(np.digitize, by, bins, dask="allowed") - 1
    rows = []
    for index in range(len(bins) - 1):
        use = known & (place == index)
        rows.append(xr.Dataset({name: one.where(use).mean() for name, one in parts.items()}).assign(count=use.sum()))
    ds = xr.concat(rows, "class").assign_coords(lower=("class", bins[:-1]), upper=("class", bins[1:]))
    return ds.assign(coverage=1 - ds["below"] - ds["above"], expected=(m - 1) / (m + 1))


def training_distance(
    ensemble: xr.DataArray,
    reference: xr.DataArray,
    training: xr.DataArray,
    dims: Sequence[str] | None = None,
) -> xr.Dataset:
    """Root mean square distance of members and of held-out truth to the nearest training field.

    ``dims`` are the grid's (default: the horizontal ones); all other dims of ``training`` number its fields. Members
    much nearer than the truth are memorised. Returns ``members`` and ``truth`` with the remaining dims of each, in the
    field's units, and ``ratio`` of their means. Cells missing anywhere are left out.
    """
    space = list(Layout.of(ensemble.to_dataset(name="field"), ["field"]).grid if dims is None else dims)
    rows = _rows(training, space)
    use = np.isfinite(rows).all(axis=0)

    def distance(field: xr.DataArray) -> xr.DataArray:
        rest = [dim for dim in field.dims if dim not in space]
        flat = _rows(field, space)
        here = use & np.isfinite(flat).all(axis=0)
        found = nearest(flat[:, here], rows[:, here]).reshape([field.sizes[dim] for dim in rest])
        coords = {dim: field[dim] for dim in rest if dim in field.coords}
        return xr.DataArray(found, dims=rest, coords=coords, attrs=_units(field))

    members, truth = distance(ensemble), distance(reference)
    return xr.Dataset({"members": members, "truth": truth, "ratio": members.mean() / truth.mean()})


def _rows(field: xr.DataArray, space: Sequence[str]) -> np.ndarray:
    values = field.transpose(..., *space).values
    return values.reshape(-1, int(np.prod(values.shape[values.ndim - len(space) :])))


def _units(field: xr.DataArray) -> dict[str, str]:
    return {"units": str(field.attrs.get("units", ""))}
