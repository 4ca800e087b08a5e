"""The tasks of ``benchmarks/evaluation.py``: data that all packages get alike, and one function per package.

A task makes its data; a row takes them and gives one number, by which one sees that all compute the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Size:
    """Members, cases and cells along each side of ensembles; fields and cells along each side for spectra."""

    members: int = 50
    cases: int = 20
    side: int = 256
    fields: int = 500


SMALL = Size(6, 2, 16, 4)


def ensemble(size: Size) -> tuple[xr.DataArray, xr.DataArray]:
    """Standard normal members and truth, float32, (member, time, y, x)."""
    generator = np.random.default_rng(0)
    shape = (size.cases, size.side, size.side)
    members = generator.standard_normal((size.members, *shape), dtype=np.float32)
    truth = generator.standard_normal(shape, dtype=np.float32)
    dims = ("time", "y", "x")
    return xr.DataArray(members, dims=("member", *dims)), xr.DataArray(truth, dims=dims)


def fields(size: Size) -> tuple[xr.DataArray]:
    """Periodic white noise, float32, (field, y, x), one cell a unit of length."""
    shape = (size.fields, size.side, size.side)
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    axis = np.arange(size.side, dtype=np.float64)
    return (xr.DataArray(values, {"y": axis, "x": axis}, ("field", "y", "x")),)


def flat(members: Any, truth: Any) -> tuple[Any, Any]:
    """Arrays or tensors as scoringrules wants them for whole fields: (case, member, cell) and (case, cell)."""
    return members.reshape(*members.shape[:2], -1).swapaxes(0, 1), truth.reshape(len(truth), -1)


def flat_cases(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The ensemble laid out like that."""
    members, truth = flat(*(array.values for array in ensemble(size)))
    return np.ascontiguousarray(members), truth


def ours(name: str, backend: str, device: str | None = None) -> Callable[..., float]:
    """One of our scores, averaged over everything with equal weights."""

    def run(members: xr.DataArray, truth: xr.DataArray) -> float:
        import sciffusion.evaluation as ev

        found = getattr(ev, name)(members, truth, weights="equal", backend=backend, device=device)
        return float(found[0] if found.ndim else found)

    return run


def ours_spectrum(backend: str, device: str | None = None) -> Callable[..., float]:
    def run(values: xr.DataArray) -> float:
        from sciffusion.evaluation.backend import backend_of
        from sciffusion.evaluation.spectra import Shells

        shells = Shells(values.shape[1:], (1.0, 1.0), (True, True))
        power = shells.power(values.values, backend_of(backend, device)).mean(axis=0)
        return float(power.sum())

    return run


def scores_crps(members: xr.DataArray, truth: xr.DataArray) -> float:
    from scores.probability import crps_for_ensemble

    return float(crps_for_ensemble(members, truth, "member", method="fair"))


def scoringrules_crps(backend: str) -> Callable[..., float]:
    def run(members: xr.DataArray, truth: xr.DataArray) -> float:
        import scoringrules

        estimator = "pwm"  # equal to "fair", which takes every pair
        cells = scoringrules.crps_ensemble(truth.values, members.values, m_axis=0, estimator=estimator, backend=backend)
        return float(cells.mean())

    return run


def xskillscore_crps(members: xr.DataArray, truth: xr.DataArray) -> float:
    import xskillscore

    return float(xskillscore.crps_ensemble(truth, members, member_dim="member"))


def scores_ranks(members: xr.DataArray, truth: xr.DataArray) -> float:
    from scores.probability import rank_histogram

    return float(rank_histogram(members, truth, "member")[0]) * (members.sizes["member"] + 1)


def xskillscore_ranks(members: xr.DataArray, truth: xr.DataArray) -> float:
    import xskillscore

    counts = xskillscore.rank_histogram(truth, members, member_dim="member")
    return float(counts[0] / counts.mean())


def scoringrules_energy(backend: str) -> Callable[..., float]:
    def run(members: np.ndarray, truth: np.ndarray) -> float:
        import scoringrules

        score = scoringrules.es_ensemble(truth, members, estimator="fair", backend=backend)
        return float(np.mean(score) / np.sqrt(truth.shape[1]))

    return run


def xrft_spectrum(values: xr.DataArray) -> float:
    import xrft

    found = xrft.isotropic_power_spectrum(values, dim=("y", "x"), truncate=False)
    return float(found.mean("field").sum())


def pysteps_spectrum(values: xr.DataArray) -> float:
    from pysteps.utils.spectral import rapsd

    return float(np.mean([rapsd(field, fft_method=np.fft) for field in values.values], axis=0).sum())


@dataclass(frozen=True)
class Task:
    """``words`` for the table, what makes the data, rows by package, what to know of a row, and our function."""

    words: str
    data: Callable[[Size], tuple]
    rows: dict[str, Callable[..., float]]
    notes: dict[str, str]
    function: str = ""


TASKS = {
    "crps": Task(
        "fair CRPS, {members} x {cases} x {side} x {side}",
        ensemble,
        {
            "ours (numpy)": ours("crps", "numpy"),
            "ours (torch)": ours("crps", "torch"),
            "scores": scores_crps,
            "scoringrules (numba)": scoringrules_crps("numba"),
            "scoringrules (numpy)": scoringrules_crps("numpy"),
            "xskillscore": xskillscore_crps,
        },
        {"xskillscore": "not fair"},
        "crps",
    ),
    "ranks": Task(
        "rank histogram, {members} x {cases} x {side} x {side}",
        ensemble,
        {
            "ours (numpy)": ours("rank_histogram", "numpy"),
            "ours (torch)": ours("rank_histogram", "torch"),
            "scores": scores_ranks,
            "xskillscore": xskillscore_ranks,
        },
        {},
        "rank_histogram",
    ),
    "energy": Task(
        "fair energy score, {members} x {cases} fields of {side} x {side}",
        ensemble,
        {
            "ours (numpy)": ours("energy_score", "numpy"),
            "ours (torch)": ours("energy_score", "torch"),
            "scoringrules (numba)": scoringrules_energy("numba"),
        },
        {"scoringrules (numba)": "from a copy (case, member, cell)"},
        "energy_score",
    ),
    "spectrum": Task(
        "radial spectrum, {fields} fields of {side} x {side}",
        fields,
        {
            "ours (numpy)": ours_spectrum("numpy"),
            "ours (torch)": ours_spectrum("torch"),
            "xrft": xrft_spectrum,
            "pysteps": pysteps_spectrum,
        },
        {"xrft": "does not sum to the variance", "pysteps": "does not sum to the variance"},
    ),
}
ARRANGED = {("energy", "scoringrules (numba)"): flat_cases}  # data laid out as a package wants them, untimed
