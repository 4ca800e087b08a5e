"""``evaluate``: line the data up, judge every case, and hand back the scores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.backend import BackendName, backend_of
from sciffusion.evaluation.climate import Climate, climate
from sciffusion.evaluation.climate_results import climate_maps, climate_table
from sciffusion.evaluation.consistency import CoarseConsistency
from sciffusion.evaluation.crps import Estimator
from sciffusion.evaluation.domain import Domain, Window
from sciffusion.evaluation.evaluation import Evaluation
from sciffusion.evaluation.gallery import gallery
from sciffusion.evaluation.grids import cells_of, recorded_grid
from sciffusion.evaluation.layout import Case, Field, Layout, check_deterministic, scored_variables, with_cases
from sciffusion.evaluation.matching import byte_count
from sciffusion.evaluation.panel import Coarse, Panel, Progress
from sciffusion.evaluation.results import Results
from sciffusion.evaluation.source import Source
from sciffusion.evaluation.state import load, save
from sciffusion.evaluation.training_fields import memorisation
from sciffusion.fields.coarsen import conservative
from sciffusion.fields.grid import Grid

__all__ = ["HELD_OUT", "IN_SAMPLE", "UNKNOWN", "evaluate"]

HELD_OUT, IN_SAMPLE, UNKNOWN = "held-out", "IN-SAMPLE", "all cases (no record of the training cases)"
OURS = "ensemble"


def evaluate(
    ensemble: xr.Dataset | Mapping[str, xr.Dataset],
    reference: xr.Dataset,
    *,
    baselines: Mapping[str, xr.Dataset] | None = None,
    coarse: xr.Dataset | None = None,
    training: xr.Dataset | None = None,
    grid: Grid | Sequence[str] | None = None,
    periodic: Sequence[str] | None = None,
    member: str | None = None,
    variables: Sequence[str] | None = None,
    estimator: Estimator = "fair",
    window: Window = "hann",
    block: int | None = None,
    progress: Progress | None = None,
    state: str | Path | Sequence[str | Path] | None = None,
    part: tuple[int, int] | None = None,
    processes: int = 1,
    memory: int | str | None = None,
    backend: BackendName = "numpy",
    device: str | None = None,
    brief: bool = False,
    force_indices: bool = False,
) -> Evaluation:
    """Judge an ensemble against the truth, beside baselines, on the cells and cases that all of them have.

    Parameters
    ----------
    ensemble
        Any ensemble: dims (member, case dims, grid dims) in any order, eager, lazy or dask-backed. Several by name are
        judged side by side, on the cells and cases of the first that all of them have.
    reference
        The truth, with the same variables. Cases are matched by their coordinate labels, cells by coordinates
        (reversed or shifted by 360 degrees is fine, a larger domain too); convertible units are converted.
    baselines
        Other ensembles or deterministic fields by name, scored on the same cells and cases.
    coarse
        The coarse input; every member is coarsened conservatively to its cells and compared with it.
    training
        Data the model was trained on: cases with the same labels are scored apart, as IN-SAMPLE, and members are
        compared with its fields for memorisation. So are cases that the ensemble's own boolean coordinate
        ``training_case`` or ``in_sample`` marks; our ensembles mark those of training and of validation.
    grid
        The grid, or the names of its dims, where coordinates do not tell. ``periodic`` names dims that wrap around.
    member
        The ensemble dim, where neither standard_name nor name tells.
    variables
        What to score; default: every variable of the ensemble that lies on the grid.
    estimator
        fair (default), standard or almost fair CRPS.
    window
        hann (default) or dct, for the spectra of domains that do not wrap around.
    block
        Number of consecutive cases that hang together, for intervals; estimated from the data by default.
    progress
        Called for every case when its turn comes: its label, how many are done, how many there are.
    state
        File that keeps the sums: an interrupted evaluation goes on from it, and new cases are added to it. Of several
        files all are read, as far as they exist, and the first is written.
    part
        (i, n): judge only the i-th (from 0) of n runs of consecutive cases, to be joined by ``state``.
    processes
        How many processes judge cases at a time. A script that asks for several needs ``if __name__ == "__main__":``.
    memory
        How much a process may hold of the members of one case, such as "2GB"; those that need more are kept in a
        temporary file meanwhile. Default: no limit.
    backend
        numpy (default), or torch on ``device``, by default the GPU where there is one.
    brief
        Only the scores that the verdict is made of, in less than half the time.
    force_indices
        Runs of dry and wet days also of members whose attribute ``time_coherence`` says that they are no trajectories.

    Raises
    ------
    SciffusionError
        For a variable that the reference lacks, different grids, inconvertible units, or no case in common.
    """
    budget, engine = None if memory is None else byte_count(memory), backend_of(backend, device)
    judged = {OURS: ensemble} if isinstance(ensemble, xr.Dataset | xr.DataArray) else dict(ensemble)
    named = _together(judged, baselines or {}, reference)
    first = next(iter(named.values()))
    chosen = scored_variables(first, reference, variables)
    dims = grid.dims if isinstance(grid, Grid) else tuple(grid or recorded_grid(first).get("dims", ()))
    layout = Layout.of(first, chosen, dims, member)
    cells = grid if isinstance(grid, Grid) else cells_of(first, layout.grid, periodic)
    systems = {name: Source.of(name, ds, layout, cells).in_units_of(reference) for name, ds in named.items()}
    truth = Source.of("the reference", reference, layout, cells, deterministic=True)
    if layout.member is None:
        check_deterministic({dim: first.sizes[dim] for dim in layout.cases}, truth.ds.dims)
    fields, cases = layout.fields(first, chosen), layout.case_list(first)
    given, known = _coarse(coarse, layout, cells, reference), memorisation(training, layout, cells, fields, reference)
    panel = Panel(systems, truth, Domain.of(cells, window), given, estimator, known, engine, budget, brief)
    sample = sampler_of(first, training, layout)
    if not any(truth.has(one, case) for one in fields for case in cases):
        _no_overlap(cases, reference)
    panel.check(fields, cases)
    panel.fix_marks(fields, cases)
    blank = [one.label for one in fields if one.label not in panel.marks]
    if 0 < len(blank) < len(fields):
        raise SciffusionError(f"the reference has no values of {', '.join(blank)}", "choose the others (variables=)")
    work = _Work(fields, _part(cases, part), sample, progress or (lambda label, done, total: None), processes)
    panel = _run(panel, _files(state), work).ordered(cases)
    years = Climate(reasons=("yearly indices: a brief evaluation and a part have none",))
    if not brief and part is None:
        judged_cases = _of_sample(panel, cases, sample)
        years = climate(panel, fields, judged_cases, forced=force_indices)
    found = [
        _evaluation(panel.led_by(name), fields, cases, sample, block, years, ds, reference)
        for name, ds in judged.items()
    ]
    return replace(found[0], others=dict(zip(list(judged)[1:], found[1:], strict=True)))


def _together(
    judged: Mapping[str, xr.Dataset], baselines: Mapping[str, xr.Dataset], reference: xr.Dataset
) -> dict[str, xr.Dataset]:
    """Ensembles and baselines in one mapping, with their cases as dims.

    Raises SciffusionError when there is no ensemble, a name stands twice, or something is no Dataset.
    """
    if not judged:
        raise SciffusionError("there is no ensemble to judge", "give one, or several by name")
    for name in judged.keys() & baselines.keys():
        raise SciffusionError(f"a baseline is called {name!r}", "that is an ensemble's name; give it another")
    named = {**judged, **baselines}
    for name, data in {**named, "the reference": reference}.items():
        if not isinstance(data, xr.Dataset):
            what = f"{name} is a {type(data).__name__} and not a Dataset"
            raise SciffusionError(what, "of a DataArray, give array.to_dataset(name=...)")
    return {name: with_cases(ds, reference) for name, ds in named.items()}


class _Work(NamedTuple):
    """What is to be judged, and how."""

    fields: list[Field]
    cases: list[Case]
    sample: Callable[[Case], str]
    progress: Progress
    processes: int


def _part(cases: list[Case], part: tuple[int, int] | None) -> list[Case]:
    """The i-th of n runs of consecutive cases."""
    if part is None:
        return cases
    i, n = part
    if not 0 <= i < n:
        raise SciffusionError(f"there is no part {i} of {n}", f"parts are numbered from 0 to {n - 1}")
    return cases[i * len(cases) // n : (i + 1) * len(cases) // n]


def _files(state: str | Path | Sequence[str | Path] | None) -> list[Path]:
    return [] if state is None else [Path(state)] if isinstance(state, str | Path) else [Path(file) for file in state]


def _run(panel: Panel, files: Sequence[Path], work: _Work) -> Panel:
    """Judge the cases that no state has; the first of ``files`` gets the sums, whatever ends the run."""
    for file in files:
        panel = load(panel, file) if file.exists() else panel
    try:
        panel.run(*work)
    finally:
        if files:
            save(panel, files[0])
    return panel


def _evaluation(
    panel: Panel,
    fields: list[Field],
    cases: list[Case],
    sample: Callable[[Case], str],
    block: int | None,
    years: Climate,
    ensemble: xr.Dataset,
    reference: xr.Dataset,
) -> Evaluation:
    samples = {key[0] for key in panel.tallies}
    if not samples:
        _no_overlap(cases, reference)
    first = _first_sample(panel)
    labels = tuple(field.label for field in fields)
    results = {name: Results(panel, name, labels, block).dataset() for name in samples}
    units = {
        f.label: str(reference[f.variable].attrs.get("units", ensemble[f.variable].attrs.get("units", "")))
        for f in fields
    }
    for ds in results.values():
        ds["units"] = ("variable", [units[label] for label in labels])
        ds.attrs["skipped"] = "; ".join(panel.skipped)
    table = climate_table(years, list(panel.systems), labels)
    results[first] = results[first].merge(table).assign_attrs(table.attrs)
    shown = next(case for case in cases if sample(case) == first and case.label in results[first]["case"])
    pictures = gallery(panel, fields, shown, first)
    pictures = pictures.assign(climate_maps(years, next(iter(panel.systems)), panel.domain.grid.dims))
    in_sample = results.get(IN_SAMPLE) if first != IN_SAMPLE else None
    return Evaluation(results[first], in_sample, pictures, dict(ensemble.attrs))


def _first_sample(panel: Panel) -> str:
    """The sample that the report is about: what was held out, if anything."""
    samples = {key[0] for key in panel.tallies}
    return next((name for name in (HELD_OUT, UNKNOWN, IN_SAMPLE) if name in samples), HELD_OUT)


def _of_sample(panel: Panel, cases: Sequence[Case], sample: Callable[[Case], str]) -> list[Case]:
    """The cases of that sample that were judged."""
    first = _first_sample(panel)
    return [case for case in cases if case.label in panel.done and sample(case) == first]


def _coarse(coarse: xr.Dataset | None, layout: Layout, fine: Grid, reference: xr.Dataset) -> Coarse | None:
    if coarse is None:
        return None
    renamed = Source.renamed(coarse, layout)
    missing = [dim for dim in fine.dims if dim not in renamed.dims]
    if missing:
        raise SciffusionError(
            f"the coarse data have no dimension {missing[0]!r}", "rename their dims to the ensemble's"
        )
    wraps = [dim for dim, periodic in zip(fine.dims, fine.periodic, strict=True) if periodic]
    grid = Grid.from_dataset(renamed, fine.dims, fine.geometry, wraps, like=fine)
    source = Source.of("the coarse data", renamed, layout, grid, deterministic=True).in_units_of(reference)
    return Coarse(source, CoarseConsistency(conservative(fine, grid).masked, grid.cell_area()))


def sampler_of(ensemble: xr.Dataset, training: xr.Dataset | None, layout: Layout) -> Callable[[Case], str]:
    """Tell whether a case was used in training: by the labels of its data, or by the ensemble's own record."""
    name = next((name for name in ("training_case", "in_sample") if name in ensemble.variables), None)
    if name is None and training is None:
        return lambda case: UNKNOWN
    flags = None if name is None else ensemble[name].load()
    labels = {} if training is None else {d: set(training.indexes[d]) for d in layout.cases if d in training.indexes}

    def used(case: Case) -> bool:
        marked = flags is not None and bool(flags.isel({d: i for d, i in case.position.items() if d in flags.dims}))
        return marked or (bool(labels) and all(case.values[d] in labels[d] for d in labels))

    return lambda case: IN_SAMPLE if used(case) else HELD_OUT


def _no_overlap(cases: Iterable[Case], reference: xr.Dataset) -> None:
    labels = [case.label for case in cases]
    for dim, value in next(iter(cases)).values.items():
        ours, theirs = getattr(value, "calendar", ""), reference.indexes.get(dim, ())
        other = getattr(theirs[0], "calendar", "") if len(theirs) else ""
        if (ours or other) and ours != other:
            what = (
                f"{dim} has the calendar {ours or 'standard'} in the ensemble, {other or 'standard'} in the reference"
            )
            raise SciffusionError(what, "convert one of them first (xarray: ds.convert_calendar)")
    spans = [
        f"{dim} from {reference[dim].values[0]} to {reference[dim].values[-1]}"
        for dim in reference.coords
        if reference[dim].ndim == 1
    ]
    words = labels[0] if len(labels) == 1 else f"{labels[0]} ... {labels[-1]}"
    raise SciffusionError(
        f"the reference has none of the ensemble's cases ({words})",
        f"give a reference of the same cases; this one has {', '.join(spans) or 'no coordinates'}, or no values there",
    )
