"""Scores of a row's ensemble beside its yardstick on the same truths, its spectra, and the fields of one case."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import sciffusion as sf
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.datasets.simulators import PROBLEMS, gaussian
from sciffusion.datasets.simulators.box import block_means
from sciffusion.evaluation import power_spectrum

__all__ = ["coarse_of", "exact_crps", "rain", "scores", "show", "spectra", "yardstick"]

SHOWN = 2  # members in a picture
WET = 1e-4  # metres in an hour: 0.1 mm
HIGH = 0.999  # quantile


def yardstick(
    problem: str, truth: xr.Dataset, members: int, run: Path, conditions: Any, cases: dict[str, list[Any]]
) -> xr.Dataset:
    """Draws of the exact posterior where it is known, else of the linear-Gaussian regression of the run, or of
    persistence with Gaussian errors where it has none.
    """
    if problem.startswith("grf"):
        return _exact(problem, truth, members)
    folder = next(path for name in ("linear", "persistence") if (path := run / "baselines" / name).is_dir())
    return sf.load(folder).sample(conditions, members, cases=cases, seed=1)


def scores(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    other: xr.Dataset,
    coarse: xr.Dataset | None,
    periodic: list[str],
    exact: float | None = None,
) -> dict[str, Any]:
    """Means over variables of the scores, and spectra. CRPS ratio: to ``exact``, without it to that of ``other``."""
    found = sf.evaluate(ensemble, truth, baselines={"yardstick": other}, coarse=coarse, brief=True).scores
    own = found.isel(system=0)
    decibels, drawn = own["ralsd"].mean(), float(found["crps_ratio"].mean())
    return {
        "crps": float(own["crps"].mean()),
        "crps_ratio": drawn if exact is None else float(own["crps"].mean()) / exact,
        "crps_ratio_to_draws": drawn,
        "exact_crps": exact,
        "crps_ratio_by_variable": found["crps_ratio"].values.ravel().tolist(),
        "crps_ratio_interval": found["crps_ratio_interval"].values.ravel().tolist(),
        "spread_skill": float(own["spread_skill"].mean()),
        "ralsd": float(decibels),
        "yardstick_crps": float(found["crps"].isel(system=1).mean()),
        "yardstick_ralsd": float(found["ralsd"].isel(system=1).mean()),
        "yardstick_spread_skill": float(found["spread_skill"].isel(system=1).mean()),
        "coarse_rms": float(own["coarse_rms"].mean()) if coarse is not None else None,  # NaN is no JSON
        "spectra": spectra(ensemble, truth, other, periodic),
    }


def rain(ensemble: xr.Dataset, truth: xr.Dataset, area: np.ndarray) -> dict[str, float]:
    """Of precipitation, in members and truths: the share of the area that is wet, a high quantile, the least value.

    ``area`` of the cells (*grid), which are the last dims; all in metres.
    """
    name = next(iter(truth.data_vars))
    found = {}
    for key, field in {"": ensemble[name], "true_": truth[name]}.items():
        values = field.values
        wet = np.average(values >= WET, weights=np.broadcast_to(area, values.shape))
        found |= {f"{key}wet": float(wet), f"{key}high": _quantile(values, area), f"{key}least": float(values.min())}
    return found


def _quantile(values: np.ndarray, area: np.ndarray) -> float:
    """The value below which the share HIGH of the area lies, of all fields together."""
    order = np.argsort(values, axis=None)
    below = np.cumsum(np.broadcast_to(area, values.shape).ravel()[order])
    return float(values.ravel()[order[np.searchsorted(below, HIGH * below[-1])]])


def spectra(ensemble: xr.Dataset, truth: xr.Dataset, other: xr.Dataset, periodic: list[str]) -> dict[str, list[float]]:
    """Mean power of the first variable by wavenumber: of the truth, the members and the yardstick's members."""
    name = next(iter(truth.data_vars))
    named = {"truth": truth[name], "members": ensemble[name], "yardstick": other[name]}
    curves = {key: power_spectrum(field, periodic=periodic) for key, field in named.items()}
    means = {key: curve.mean([dim for dim in curve.dims if dim != "wavenumber"]) for key, curve in curves.items()}
    seen = curves["truth"]["wavenumber"].values > 0
    return {"wavenumber": curves["truth"]["wavenumber"].values[seen].tolist()} | {
        key: mean.values[seen].tolist() for key, mean in means.items()
    }


def show(ensemble: xr.Dataset, truth: xr.Dataset, coarse: xr.Dataset | None, grid: list[str], path: Path) -> None:
    """One case of the first variable to a small NetCDF: truth, some members, coarse (on dims ``coarse_*``)."""
    name = next(iter(truth.data_vars))
    parts = {"truth": truth[name], "member": ensemble[name].isel(member=slice(SHOWN))}
    if coarse is not None:
        parts["coarse"] = coarse[name].rename({dim: f"coarse_{dim}" for dim in grid})
    kept = {"member", *grid, *(f"coarse_{dim}" for dim in grid)}
    plane = {grid[0]: 0} if len(grid) == 3 else {}  # of a box, one plane
    plane |= {f"coarse_{dim}": 0 for dim in plane}
    for key, field in parts.items():
        first = {dim: 0 for dim in field.dims if dim not in kept}
        chosen = field.isel(first | {dim: place for dim, place in plane.items() if dim in field.dims})
        parts[key] = chosen.reset_coords(drop=True).astype(np.float32)
    fields = {key: field.drop_vars([c for c in field.coords if c not in field.dims]) for key, field in parts.items()}
    packed = {key: {"zlib": True, "complevel": 9, "significant_digits": 3} for key in fields}
    xr.Dataset(fields).to_netcdf(path, engine="netcdf4", encoding=packed)


def coarse_of(
    reader: CoarseField | None, conditions: Any, cases: dict[str, list[Any]], variables: list[str]
) -> xr.Dataset | None:
    """The coarse condition of the cases, where it has the target's variables; of fine data their conservative means."""
    data = conditions.get("coarse")
    if reader is None or data is None or any(name not in data for name in variables):
        return None
    dims = reader.grid.dims
    chosen: xr.Dataset = data[variables].sel({dim: labels for dim, labels in cases.items() if dim in data.dims}).load()
    if not reader.is_fine(chosen):
        return chosen
    leading = [dim for dim in chosen.dims if dim not in dims]
    means = {
        name: ((*leading, *dims), reader.coarsening(field.transpose(*leading, *dims).values.astype(np.float64)))
        for name, field in chosen.items()
    }
    return xr.Dataset(means, reader.coarse_grid.coords_dataset().coords).assign_coords({d: chosen[d] for d in leading})


def exact_crps(name: str, truth: xr.Dataset) -> float | None:
    """Mean CRPS of the exact posterior on these truths, in closed form (Gneiting et al. 2005, eq. 5), if it is known.

    An ensemble of the posterior has it in expectation, and differs from it by chance.
    """
    if not name.startswith("grf"):
        return None
    posterior, fields, means = _posterior(name, truth)
    sd = posterior.variance.sqrt()
    z = (fields - posterior.mean(means)) / sd
    normal = torch.distributions.Normal(0.0, 1.0)
    scores = sd * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - 1 / math.sqrt(math.pi))
    return float(scores.mean())


def _posterior(name: str, truth: xr.Dataset) -> tuple[gaussian.BlockPosterior, torch.Tensor, torch.Tensor]:
    """The exact posterior of a Gaussian problem, the truths and their block means, (case, 1, *grid)."""
    problem = PROBLEMS[name]
    (variable,) = truth.data_vars
    fields = torch.from_numpy(truth[variable].transpose("sample", *problem.dims).values).double()[:, None]
    posterior = gaussian.BlockPosterior(gaussian.law(problem.shape, problem.settings["slope"]), problem.factor)
    return posterior, fields, block_means(fields, problem.factor, len(problem.shape))


def _exact(name: str, truth: xr.Dataset, members: int) -> xr.Dataset:
    """Draws of the exact posterior given the block means of the truth, as an ensemble."""
    (variable,) = truth.data_vars
    posterior, _, means = _posterior(name, truth)
    draws = posterior.sample(means, members, torch.Generator().manual_seed(1))[:, :, 0].float().numpy()
    dims = ("member", "sample", *PROBLEMS[name].dims)
    return xr.Dataset(
        {variable: (dims, draws, truth[variable].attrs)}, coords={**truth.coords, "member": range(members)}
    )
