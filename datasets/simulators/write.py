"""A problem on disk: fine.zarr, coarse.zarr and an experiment that trains on them, in constant memory and resumable.

Cases are made in batches and written one batch at a time; ``made.json`` counts the complete ones, so that the same call
goes on after a kill.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml

from sciffusion.caches import publish
from sciffusion.datasets.simulators.problems import Problem, get
from sciffusion.errors import SciffusionError

__all__ = ["write_problem"]

_KINDS = ("fine", "coarse")
CHUNK = 2**17  # cells of the fine field at most, where more than one frame fits: training reads single frames


def write_problem(
    name: str,
    folder: str | Path,
    *,
    cases: Sequence[int] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch: int | None = None,
    progress: bool = True,
) -> Path:
    """Simulate a problem into ``folder`` and return the path of its experiment YAML.

    Parameters
    ----------
    name
        One of ``PROBLEMS``: grf, grf96, grf3d, kolmogorov, kolmogorov-coarse, shallow-water, kuramoto-sivashinsky.
    cases
        How many to (train, validate, test) on: trajectories of a flow, or independent draws. Default: the problem's.
    batch
        Cases made at once; memory grows with it, the data do not depend on it but for rounding.

    Raises
    ------
    SciffusionError
        For an unknown problem, counts that are not three positive numbers, or a folder that holds other data.
    """
    problem, folder = get(name), Path(folder)
    counts = tuple(cases or problem.cases)
    if len(counts) != 3 or min(counts) < 1:
        raise SciffusionError(f"cases {counts}", "give three positive counts: to train, validate and test on")
    settings = {"problem": name, "cases": list(counts), "seed": seed}
    done, total = _begin(problem, folder, settings, sum(counts)), sum(counts)
    size = batch or problem.batch
    for first in _bar(range(done, total, size), progress, name):
        numbers = range(first, min(first + size, total))
        with torch.no_grad():
            _write_batch(problem, folder, numbers, seed, torch.device(device))
        _note(folder, settings | {"done": numbers[-1] + 1})
    experiment = folder / "experiment.yaml"
    with publish(experiment) as path:
        path.write_text(yaml.safe_dump(_experiment(name, problem, counts), sort_keys=False))
    return experiment


def _begin(problem: Problem, folder: Path, settings: dict[str, Any], total: int) -> int:
    """Number of cases that are complete; new stores where there are none."""
    note = folder / "made.json"
    if note.is_file():
        made = json.loads(note.read_text())
        if {key: made.get(key) for key in settings} != settings:
            raise SciffusionError(f"{folder} holds other data: {made}", "name another folder, or remove this one")
        return int(made["done"])
    if folder.exists() and any(folder.iterdir()):
        raise SciffusionError(f"{folder} is not empty", "name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for kind in _KINDS:
        _template(problem, kind, total, settings).to_zarr(folder / f"{kind}.zarr", compute=False, consolidated=False)
    _note(folder, settings | {"done": 0})
    return 0


def _note(folder: Path, made: dict[str, Any]) -> None:
    with publish(folder / "made.json") as path:
        path.write_text(json.dumps(made))
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _template(problem: Problem, kind: str, total: int, settings: dict[str, Any]) -> xr.Dataset:
    """A store's Dataset without its values; a chunk is a few frames of a trajectory, or a batch of draws."""
    import dask.array

    factor = problem.factor if kind == "coarse" else 1
    shape = tuple(n // factor for n in problem.shape)
    leading: dict[str, Any] = {problem.case_dim: np.arange(total)}
    chunks: tuple[int, ...] = (problem.batch, *shape)
    if problem.frames:
        times = problem.interval * np.arange(problem.frames)
        leading["frame"] = ("frame", times, {"long_name": "time since the first frame", "units": problem.time_units})
        chunks = (1, min(problem.frames, max(1, CHUNK // math.prod(problem.shape))), *shape)
    axes = {
        dim: (dim, (np.arange(n) + 0.5) * problem.length / n, {"units": problem.units})
        for dim, n in zip(problem.dims, shape, strict=True)
    }
    dims = (*leading, *axes)
    sizes = (total, *([problem.frames] if problem.frames else []), *shape)
    empty = dask.array.zeros(sizes, chunks=chunks, dtype=np.float32)
    return xr.Dataset(
        {name: (dims, empty, {"units": "1", **attrs}) for name, attrs in problem.variables.items()},
        coords=leading | axes,
        attrs={
            "title": f"{problem.summary} ({kind})",
            "source": f"sciffusion.datasets.simulators {json.dumps(settings)}",
        },
    )


def _write_batch(problem: Problem, folder: Path, numbers: Sequence[int], seed: int, device: torch.device) -> None:
    """Simulate some cases and write them, (case, [frame,] *grid) per variable."""
    pairs = list(_on_host(problem, numbers, seed, device))
    for index, kind in enumerate(_KINDS):
        values = np.stack([pair[index] for pair in pairs], axis=1)  # (case, frame, channel, *grid)
        values = values if problem.frames else values[:, 0]
        dims = (problem.case_dim, *(["frame"] if problem.frames else []), *problem.dims)
        channel = 2 if problem.frames else 1
        fields = {name: (dims, values.take(i, axis=channel)) for i, name in enumerate(problem.variables)}
        region = {problem.case_dim: slice(numbers[0], numbers[-1] + 1)}
        xr.Dataset(fields).to_zarr(folder / f"{kind}.zarr", region=region, consolidated=False)


def _on_host(
    problem: Problem, numbers: Sequence[int], seed: int, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for fine, coarse in problem.make(problem, numbers, seed, device):
        yield fine.float().cpu().numpy(), coarse.float().cpu().numpy()


def _experiment(name: str, problem: Problem, counts: Sequence[int]) -> dict[str, Any]:
    """Settings that train on the stores beside them; a recipe is added by the user."""
    variables, ends = list(problem.variables), list(accumulate(counts))
    ranges = [[[end - count, end - 1]] for count, end in zip(counts, ends, strict=True)]
    return {
        "version": 1,
        "title": problem.summary,
        "output": f"{name}-run",
        "target": {
            "source": {"paths": ["fine.zarr"]},
            "variables": {variable: {} for variable in variables},
            "dims": list(problem.dims),
            "periodic": list(problem.dims),
        },
        "conditions": {
            "coarse": {"kind": "coarse", "source": {"paths": ["coarse.zarr"]}, "variables": variables},
        },
        "split": {"dim": problem.case_dim, **dict(zip(("train", "validation", "test"), ranges, strict=True))},
        "stages": [{"name": "denoiser", "kind": "denoiser", "baseline": "coarse"}],
    }


def _bar(batches: range, show: bool, name: str) -> Any:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(batches, desc=f"simulating {name}", unit="batch", disable=None if show else True)
