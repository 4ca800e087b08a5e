"""New conditions in the terms of those a model was trained with: names, units, longitudes, latitudes, grid.

``harmonise`` changes a Dataset until it can stand where the training data stood, and logs each change in one line.
What the axes mean is told by ``sciffusion.fields.roles``, how units convert by ``sciffusion.fields.units``.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.checks import suggestion
from sciffusion.fields.lazy import linear
from sciffusion.fields.roles import (
    geometry_of,
    mend_of_missing_dim,
    role_of,
    roles,
    spacing_of,
    wraps_around,
)
from sciffusion.fields.template import Template, as_template
from sciffusion.fields.units import conversion, same_units

__all__ = ["convert_units", "harmonise", "match_names"]

logger = logging.getLogger(__name__)
TOLERANCE = 1e-3  # of the spacing, within which two coordinates are the same


def harmonise(
    ds: xr.Dataset,
    like: Template | xr.Dataset,
    *,
    dims: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    name: str = "conditions",
) -> xr.Dataset:
    """Bring new data into the names, units, longitudes, latitude direction and grid of ``like``.

    Parameters
    ----------
    ds
        New data, lazily opened. Its calendar, period and additional dims are kept.
    like
        The training data, or what a model remembers of them.
    dims
        Grid dims of ``like`` when it is a Dataset; None: its horizontal dims.
    rename
        Name in ``ds`` -> name in ``like``, where attributes and names do not tell.
    name
        What to call the data in messages.

    Returns
    -------
    xr.Dataset
        The variables of ``like``, lazily. Every change is logged in one line.

    Raises
    ------
    SciffusionError
        For a variable that cannot be found, units that do not convert, a level or a region that is not covered.
    """
    template = as_template(like, dims)
    ds = match_names(ds, template, rename=rename, name=name)
    ds = convert_units(ds, template, name=name)
    for dim in template.channel_dims:
        ds = _match_labels(ds, template, dim, name)
    for dim in template.dims:
        ds = _match_longitude(ds, template, dim, name)
        ds = _match_direction(ds, template, dim, name)
    return _match_grid(ds, template, name)


def match_names(
    ds: xr.Dataset, like: Template | xr.Dataset, *, rename: Mapping[str, str] | None = None, name: str = "conditions"
) -> xr.Dataset:
    """Rename variables (by mapping, case, standard name) and dims (by role) to those of ``like``; keep only these."""
    template = as_template(like)
    given = {old: new for old, new in (rename or {}).items() if old in ds.variables or old in ds.dims}
    names = {**given, **_dim_names(ds, template, given)}
    for wanted in template.fields:
        if wanted not in ds.data_vars and wanted not in names.values():
            names[_find_variable(ds, template, wanted, name)] = wanted
    names = {old: new for old, new in names.items() if old != new}
    if names:
        logger.info("%s: renamed %s", name, ", ".join(f"{old} -> {new}" for old, new in names.items()))
    return ds.rename(names)[list(template.fields)]


def _dim_names(ds: xr.Dataset, template: Template, given: Mapping[str, str]) -> dict[str, str]:
    """Dims of ``ds`` that play the role of a dim of the template under another name."""
    old = template.dataset()
    wanted = {dim: role_of(old, dim) for info in template.fields.values() for dim in info.dims}
    names: dict[str, str] = {}
    for dim, role in wanted.items():
        if role is None or dim in ds.dims or dim in given.values():
            continue
        candidates = [other for other, found in roles(ds).items() if found == role and other not in wanted]
        if len(candidates) == 1 and candidates[0] not in (*names, *given):
            names[candidates[0]] = dim
    return names


def _find_variable(ds: xr.Dataset, template: Template, wanted: str, name: str) -> str:
    """The variable that differs only by case, or the only one with the same standard name."""
    known = [str(other) for other in ds.data_vars]
    same = [other for other in known if other.lower() == wanted.lower()]
    standard = template.fields[wanted].attrs.get("standard_name")
    if not same and standard:
        same = [other for other in known if ds[other].attrs.get("standard_name") == standard]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(wanted, known, n=1)
    example = near[0] if near else (known[0] if known else "name")
    raise SciffusionError(
        f"{name}: no variable is called {wanted!r}",
        f"map it with rename: {{{example}: {wanted}}}, or --rename {example}={wanted}; {suggestion(wanted, known)}",
    )


def convert_units(ds: xr.Dataset, like: Template | xr.Dataset, *, name: str = "conditions") -> xr.Dataset:
    """Convert variables and level coordinates to the units of ``like``; a missing units attribute is taken as equal."""
    template = as_template(like)
    units = {variable: info.units for variable, info in template.fields.items() if variable in ds.data_vars}
    units |= {dim: attrs.get("units", "") for dim, attrs in template.coord_attrs.items() if dim in ds.coords}
    for variable, wanted in units.items():
        have = str(ds[variable].attrs.get("units", ""))
        if not wanted or not have or same_units(have, wanted) or _both_angles(have, wanted):
            continue
        slope, offset = conversion(have, wanted, f"{name}: {variable}")
        logger.info("%s: %s converted from %s to %s", name, variable, have, wanted)
        ds = ds.assign({variable: _linear(ds[variable].variable, slope, offset, wanted)})
    return ds


def _both_angles(one: str, two: str) -> bool:
    return one.lower().startswith("deg") and two.lower().startswith("deg") and not {one[-1], two[-1]} & {"C", "K", "F"}


def _linear(variable: xr.Variable, slope: float, offset: float, units: str) -> xr.Variable:
    """``slope * x + offset`` in the variable's own floating precision, lazily where it is lazy."""
    if variable.chunks is None and not variable._in_memory:
        changed = linear(variable, slope, offset)
    else:
        kind = variable.dtype if np.issubdtype(variable.dtype, np.floating) else np.dtype(np.float64)
        changed = (variable.astype(np.float64) * slope + offset).astype(kind)
    changed.attrs = {**variable.attrs, "units": units}
    return changed


def _match_labels(ds: xr.Dataset, template: Template, dim: str, name: str) -> xr.Dataset:
    """Pick the levels of the template, in its order."""
    if dim not in template.coords:
        if ds.sizes.get(dim) != template.sizes[dim]:
            raise SciffusionError(
                f"{name}: dim {dim!r} has length {ds.sizes.get(dim)}, the model {template.sizes[dim]}", "select others"
            )
        return ds
    wanted = template.coords[dim]
    if dim not in ds.coords:
        raise SciffusionError(f"{name}: {dim!r} has no coordinate", f"the model needs {dim} = {wanted.tolist()}")
    index = []
    for label in wanted:
        same = np.flatnonzero(
            np.isclose(ds[dim].values.astype(float), label) if wanted.dtype.kind in "iuf" else ds[dim].values == label
        )
        if not same.size:
            raise SciffusionError(
                f"{name}: {dim} has no {label}", f"the model needs {dim} = {wanted.tolist()}; there is {ds[dim].values}"
            )
        index.append(int(same[0]))
    return ds if index == list(range(ds.sizes[dim])) else ds.isel({dim: index})


def _match_longitude(ds: xr.Dataset, template: Template, dim: str, name: str) -> xr.Dataset:
    """Shift longitudes by whole turns into the template's range, and roll them into rising order."""
    old = template.dataset()
    if dim not in old.coords or dim not in ds.coords or role_of(old, dim) != "longitude" or ds.sizes[dim] < 2:
        return ds
    values = ds[dim].values.astype(np.float64)
    start = float(old[dim].values.min()) - (spacing_of(ds, dim) or 0.0) / 2
    wrapped = np.round((values - start + 1e-6) % 360 + start - 1e-6, 9)
    order = np.argsort(wrapped)
    order = order[np.diff(wrapped[order], prepend=-np.inf) > 1e-6]  # a first column repeated at the end is dropped
    if order[0] > order[-1] and np.all(np.diff(order) == -1):
        order = order[::-1]  # falling throughout: the direction is matched afterwards
    moved = order.size < values.size or bool(np.any(order != np.arange(order.size)))
    if not moved and np.allclose(wrapped, values):
        return ds
    logger.info(
        "%s: longitudes %.6g to %.6g %s to %.6g to %.6g",
        *(name, values[0], values[-1], "rolled" if moved else "shifted", wrapped[order[0]], wrapped[order[-1]]),
    )
    ds = ds.assign_coords({dim: (dim, wrapped, ds[dim].attrs)})
    return ds.isel({dim: order}) if moved else ds


def _match_direction(ds: xr.Dataset, template: Template, dim: str, name: str) -> xr.Dataset:
    """Reverse an axis that runs the other way."""
    if dim not in template.coords or dim not in ds.coords or ds.sizes[dim] < 2 or template.sizes[dim] < 2:
        return ds
    wanted, values = template.coords[dim], ds[dim].values
    if (wanted[-1] > wanted[0]) == (values[-1] > values[0]):
        return ds
    logger.info("%s: %s reversed", name, dim)
    return ds.isel({dim: slice(None, None, -1)})


def _match_grid(ds: xr.Dataset, template: Template, name: str) -> xr.Dataset:
    """Take the template's coordinates where they agree, cut out its region, or regrid."""
    other: list[str] = []
    for dim in template.dims:
        if dim not in ds.dims:
            have = ", ".join(map(str, ds.dims))
            raise SciffusionError(
                f"{name}: no dim plays the role of {dim!r} (dims: {have})",
                mend_of_missing_dim(ds, "map it with rename"),
            )
        if dim not in template.coords or dim not in ds.coords:
            if ds.sizes[dim] != template.sizes[dim]:
                raise SciffusionError(
                    f"{name}: {dim!r} has length {ds.sizes[dim]}, the model {template.sizes[dim]}, and no coordinates"
                    " that would tell how to regrid",
                    "give data on the training grid, or with coordinates",
                )
            continue
        index = _matching(ds[dim].values, template.coords[dim])
        if index is None:
            other.append(dim)
        else:
            if index.size < ds.sizes[dim]:
                logger.info("%s: %s cut to the model's %d of %d cells", name, dim, index.size, ds.sizes[dim])
                ds = ds.isel({dim: slice(int(index[0]), int(index[-1]) + 1)})
            ds = ds.assign_coords({dim: (dim, template.coords[dim], ds[dim].attrs)})
    return _regrid(ds, template, other, name) if other else ds


def _matching(values: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Contiguous positions of ``wanted`` in ``values`` within TOLERANCE of a spacing; None when any is missing."""
    if values.size < wanted.size:
        return None
    spacing = abs(float(wanted[-1]) - float(wanted[0])) / max(1, wanted.size - 1) or 1.0
    start = int(np.argmin(np.abs(values.astype(float) - float(wanted[0]))))
    part = values[start : start + wanted.size]
    if part.size < wanted.size or not np.allclose(part, wanted, rtol=0, atol=TOLERANCE * spacing):
        return None
    return np.arange(start, start + wanted.size)


def _regrid(ds: xr.Dataset, template: Template, changed: list[str], name: str) -> xr.Dataset:
    """Conservatively to the template's grid, when it covers its region."""
    from sciffusion.fields.coarsen import regrid
    from sciffusion.fields.grid import Grid

    like = template.dataset()
    _check_covers(ds, like, changed, name)
    periodic = [dim for dim in template.dims if wraps_around(like, dim)]
    grid = Grid.from_dataset(like, template.dims, geometry_of(like, template.dims), periodic)
    old = " x ".join(str(ds.sizes[dim]) for dim in template.dims)
    logger.info("%s: regridded from %s to %s cells", name, old, " x ".join(str(size) for size in grid.shape))
    regridded: xr.Dataset = regrid(ds, grid)
    return regridded


def _check_covers(ds: xr.Dataset, like: xr.Dataset, dims: list[str], name: str) -> None:
    """Refuse data that do not reach the edges of the model's region, give or take a cell of theirs."""
    for dim in dims:
        if wraps_around(ds, dim):
            continue
        slack = (spacing_of(ds, dim) or 0.0) + (spacing_of(like, dim) or 0.0)
        have, need = ds[dim].values, like[dim].values
        if have.min() - slack > need.min() or have.max() + slack < need.max():
            raise SciffusionError(
                f"{name}: {dim} runs from {have.min():g} to {have.max():g}, the model needs {need.min():g} to"
                f" {need.max():g}",
                "give data that cover the region of the training data",
            )
