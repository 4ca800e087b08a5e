"""What to generate from: new data of the user's, or the cases that a run held out for testing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from sciffusion.errors import SciffusionError

if TYPE_CHECKING:
    from sciffusion.config import Experiment

__all__ = ["held_out", "open_conditions", "selection"]


def held_out(run: Path | str, *, all_cases: bool = False) -> tuple[dict[str, xr.Dataset], dict[str, Any] | None]:
    """Conditions of a run's own experiment, and its test cases as labels per case dim (None: all, or no case dims).

    ``run`` is a run folder, a model folder, or the YAML of an experiment.

    Raises SciffusionError when neither the run nor its model's card holds an experiment, or its split no test cases.
    """
    from sciffusion.datasets.pairs import open_experiment

    data = open_experiment(_experiment(Path(run)))
    if all_cases:
        return dict(data.conditions), None
    cases = data.cases.get("test", [])
    if not cases:
        raise SciffusionError(
            f"{run}: the split of its experiment has no test cases", "give --conditions, or --all-cases"
        )
    labels = {dim: _different([case.values[dim] for case in cases]) for dim in cases[0].dims}
    return dict(data.conditions), labels or None


def _experiment(run: Path) -> "Experiment":
    """Settings of a run's experiment: its YAML, else those on the model's card."""
    from sciffusion.config import load_experiment

    if run.is_file():
        return load_experiment(run)
    if (run / "experiment.yaml").is_file():
        return load_experiment(run / "experiment.yaml")
    for path in (run / "emulator" / "model.json", run / "model.json"):
        if path.is_file():
            settings = json.loads(path.read_text()).get("card", {}).get("experiment")
            if settings:
                return load_experiment(settings)
    raise SciffusionError(f"{run}: holds no experiment, so nothing is known to be held out", "give --conditions")


def open_conditions(
    paths: Sequence[str], rename: Mapping[str, str] | None = None
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Open new conditions: paths of one dataset that serves every condition, or ``name=path`` for each of them."""
    from sciffusion.config import Source
    from sciffusion.fields.open import open_source

    named: dict[str, list[str]] = {}
    for text in paths:
        name, separator, path = text.partition("=")
        is_path = not separator or Path(text).exists() or not name.isidentifier()
        named.setdefault("" if is_path else name, []).append(text if is_path else path)
    if "" in named and len(named) > 1:
        raise SciffusionError("--conditions mixes paths with name=path", "name all of them, or none")
    opened = {name: open_source(Source(paths=files, rename=dict(rename or {}))) for name, files in named.items()}
    return opened[""] if "" in opened else opened


def selection(texts: Sequence[str], conditions: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Read ``dim=label``, ``dim=first/last`` and ``dim=label,label`` into what ``cases`` takes.

    Labels become numbers where the coordinate is numeric; a date stands for all times in it, so 2041 is a year.
    Raises SciffusionError for an unknown dim.
    """
    datasets = [conditions] if isinstance(conditions, xr.Dataset) else list(conditions.values())
    chosen = {}
    for text in texts:
        dim, separator, wanted = text.partition("=")
        holder = next((ds for ds in datasets if dim in ds.dims), None)
        if not separator or holder is None:
            dims = sorted({str(name) for ds in datasets for name in ds.dims})
            what = f"--select {text}: no such dimension"
            raise SciffusionError(what, f"write dim=label; the dims are {', '.join(dims)}")
        chosen[dim] = _labels(wanted, holder, dim, text)
    return chosen


def _labels(wanted: str, ds: xr.Dataset, dim: str, text: str) -> Any:
    numeric = dim not in ds.coords or ds[dim].dtype.kind in "iuf"
    first, range_, last = wanted.partition("/")
    if range_:
        return slice(_label(first, numeric, text), _label(last, numeric, text))
    if "," in wanted:
        return [_label(part, numeric, text) for part in wanted.split(",")]
    label = _label(wanted, numeric, text)
    is_time = dim in ds.indexes and isinstance(ds.indexes[dim], pd.DatetimeIndex | xr.CFTimeIndex)
    return slice(label, label) if is_time else label


def _label(label: str, numeric: bool, text: str) -> str | int | float | None:
    if not label:
        return None
    if not numeric:
        return label
    try:
        number = float(label)
    except ValueError:
        raise SciffusionError(f"--select {text}: {label!r} is not a number", "the coordinate is numeric") from None
    return int(number) if number.is_integer() else number


def _different(values: Sequence[Any]) -> list[Any]:
    """Values in order, each once."""
    kept: list[Any] = []
    for value in values:
        if not any(np.array_equal(value, other) for other in kept):
            kept.append(value)
    return kept
