"""Targets and their conditions: an experiment's sources opened, checked against each other and split into cases."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import xarray as xr

from sciffusion import config
from sciffusion.datasets.align import extra_dims, served, split_cases, with_predecessors
from sciffusion.datasets.example import example_path
from sciffusion.datasets.region import cut_to
from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import cyclic_columns
from sciffusion.fields.cases import Align, Case, cases_of
from sciffusion.fields.checks import check_dims, suggestion
from sciffusion.fields.conventions import convert_units
from sciffusion.fields.grid import Grid
from sciffusion.fields.open import check_overlap, open_source
from sciffusion.fields.roles import find_axis, role_of
from sciffusion.fields.template import FieldInfo, Template
from sciffusion.memory import available_memory

__all__ = ["ExperimentData", "open_experiment"]

log = logging.getLogger(__name__)
SHARE = 8  # data that takes at most 1/SHARE of the free memory may be read whole


@dataclass(frozen=True)
class ExperimentData:
    """An experiment's data, lazily opened.

    target : the variables to learn; conditions : name -> its data, the target's own for a coarse field without source,
    an empty Dataset for clocks and positions; cases : ``train``, ``validation``, ``test`` -> cases, in data order.
    """

    target: xr.Dataset
    conditions: dict[str, xr.Dataset]
    grid: Grid
    cases: dict[str, list[Case]]
    experiment: config.Experiment | None = None

    def in_memory(self) -> "ExperimentData":
        """The same data, read at once where it takes a small share of the free memory: case by case is far slower."""
        sources = [self.target, *self.conditions.values()]
        if sum({id(ds): ds.nbytes for ds in sources}.values()) > available_memory() // SHARE:
            return self
        read = {id(ds): ds.compute() for ds in sources}
        conditions = {name: read[id(ds)] for name, ds in self.conditions.items()}
        return replace(self, target=read[id(self.target)], conditions=conditions)

    def reopened(self) -> "ExperimentData":
        """The same data with file handles of this process; HDF5 files must not be shared between processes."""
        if self.experiment is None:
            return self
        target, grid = _open_target(self.experiment.target, check=False)
        conditions = _open_conditions(self.experiment, target, grid, check=False)
        return ExperimentData(target, conditions, self.grid, self.cases, self.experiment)


def open_experiment(experiment: config.Experiment, *, check: bool = True) -> ExperimentData:
    """Open the target and the conditions of an experiment, and find the cases that all of them serve.

    Case dims are those of the target, then those that only a condition has (its realizations, scenarios). ``check``
    reads a few samples too, to refuse empty fields.

    Raises SciffusionError, before any work, for sources that cannot be used or do not overlap, and for an empty split.
    """
    target, grid = _open_target(experiment.target, check=check)
    conditions = _open_conditions(experiment, target, grid, check=check)
    core = (*experiment.target.dims, *experiment.target.channel_dims)
    aligned: dict[str, tuple[xr.Dataset, Align]] = {
        name: (data, getattr(experiment.conditions[name], "align", "exact"))
        for name, data in conditions.items()
        if experiment.conditions[name].kind not in ("static", "previous") and data is not target
    }
    skeleton = extra_dims(target, [data for data, _ in aligned.values()], core)
    cases = served(cases_of(skeleton, ()), skeleton, aligned)
    for name, settings in experiment.conditions.items():
        if isinstance(settings, config.Previous):
            cases = with_predecessors(cases, conditions[name], settings)
    return ExperimentData(target, conditions, grid, split_cases(cases, skeleton, experiment.split), experiment)


def _open_target(settings: config.Target, *, check: bool) -> tuple[xr.Dataset, Grid]:
    ds = open_source(_resolved(settings.source), list(settings.variables), settings.dims, check=check)
    for dim in settings.channel_dims:
        if dim not in ds.dims:
            raise SciffusionError(f"target.channel_dims: no dim {dim!r}", suggestion(dim, map(str, ds.dims)))
    ds = _converted(ds, {name: how.units for name, how in settings.variables.items() if how.units}, "target")
    for dim in settings.periodic:
        repeated = cyclic_columns(ds[dim].values) if role_of(ds, dim) == "longitude" and dim in ds.coords else 0
        if repeated:
            log.info("target: the last %d of %d columns repeat the first, dropped", repeated, ds.sizes[dim])
            ds = ds.isel({dim: slice(0, -repeated)})
    return ds, Grid.from_dataset(ds, settings.dims, settings.geometry, settings.periodic, settings.spacing)


def _open_conditions(
    experiment: config.Experiment, target: xr.Dataset, grid: Grid, *, check: bool
) -> dict[str, xr.Dataset]:
    return {
        name: _open_condition(name, settings, target, grid, check=check)
        for name, settings in experiment.conditions.items()
    }


def _open_condition(
    name: str, settings: config.Condition, target: xr.Dataset, grid: Grid, *, check: bool
) -> xr.Dataset:
    if isinstance(settings, (config.Calendar, config.Position)):
        return xr.Dataset()
    if settings.source is None:
        return target
    is_text = isinstance(settings, config.Text)
    variables = settings.variables or [str(variable) for variable in target.data_vars]
    kept = settings.variables if isinstance(settings, config.CustomCondition) else variables
    ds = open_source(_resolved(settings.source), kept, check=check and not is_text)
    ds = _named_like(ds, target, name)
    if isinstance(settings, (config.Scalar, config.Text, config.CustomCondition)):
        return ds
    check_dims(ds, variables, grid.dims, f"conditions.{name}")
    ds = ds.transpose(..., *grid.dims)
    if isinstance(settings, config.CoarseField):
        units = {v: str(target[v].attrs.get("units", "")) for v in settings.variables if v in target}
        ds = _converted(ds, units, name)
        check_overlap(target, ds, list(grid.dims), align=settings.align, name=name)
        ds = cut_to(ds, grid)
    return ds


def _resolved(source: config.Source) -> config.Source:
    """``example://NAME`` is the embedded data set of that name."""
    scheme = "example://"
    paths = [str(example_path(p.removeprefix(scheme))) if p.startswith(scheme) else p for p in source.paths]
    return source.model_copy(update={"paths": paths})


def _converted(ds: xr.Dataset, units: Mapping[str, str], name: str) -> xr.Dataset:
    """Convert variables to the units given; "" leaves them."""
    fields = {variable: FieldInfo((), {"units": wanted}) for variable, wanted in units.items() if wanted}
    return convert_units(ds, Template(fields, (), (), {}, {}, {}), name=name)


def _named_like(ds: xr.Dataset, target: xr.Dataset, name: str) -> xr.Dataset:
    """Dims of the same role get the target's names: a coarse model's lat is the target's latitude."""
    names: dict[str, str] = {}
    for dim in _missing(target, ds):
        role = role_of(target, dim)
        other = None if role is None else find_axis(ds, role)
        if other is not None and other not in target.dims:
            names[other] = dim
    if names:
        log.info("%s: renamed %s", name, ", ".join(f"{old} -> {new}" for old, new in names.items()))
    return ds.rename(names)


def _missing(target: xr.Dataset, ds: xr.Dataset) -> Sequence[str]:
    return [str(dim) for dim in target.dims if dim not in ds.dims]
