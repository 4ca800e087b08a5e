"""Spectra as a reader wants them: power, its ratio to the truth's with the truth's own error, and skill by scale."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sciffusion.evaluation.bootstrap import LEAST_BLOCKS, block_length
from sciffusion.evaluation.spectra import unresolved
from sciffusion.evaluation.spectral import KINDS, Spectral

if TYPE_CHECKING:
    from sciffusion.evaluation.results import Results

__all__ = ["tables"]

TEXTS = {
    "truth": "power of the truth",
    "members": "mean power of the members",
    "mean": "power of the ensemble mean",
    "variance": "power of the members' departures from their mean, times (m+1)/m",
    "error": "power of ensemble mean minus truth",
    "cross": "real cross-power of ensemble mean and truth",
}
KNOWN = 1e-8  # share of the power below which spread and error are rounding: the scale is known exactly
LEAST_CASES = 3  # from which the truth's error is taken from the scatter between cases


def tables(results: "Results") -> list[xr.Dataset]:
    """Power by (band, wavenumber), and by half-octave bins: ratios, relative standard error of the truth, coherence."""
    basis = results.panel.domain.basis
    edges = Spectral(basis).edges
    middle, (length, units) = np.sqrt(edges[1:] * edges[:-1]), basis.wavelength
    coords = {
        "system": results.systems,
        "variable": list(results.fields),
        "band": list(basis.bands),
        "wavenumber": ("wavenumber", basis.wavenumber, {"units": basis.units}),
        "wavelength": ("scale", length / middle, {"units": units}),
        "scale": (
            "scale",
            middle,
            {"units": basis.units, "long_name": "middle of a half-octave bin"},
        ),
        "scale_low": ("scale", edges[:-1]),
        "scale_high": ("scale", edges[1:]),
        "to_density": (
            "wavenumber",
            basis.density(np.ones(len(basis.wavenumber))),
            {"long_name": "density over power"},
        ),
    }
    ds = xr.Dataset(coords=coords)
    for kind in KINDS:
        power = _total(results, f"shells_{kind}", (len(basis.bands), len(basis.wavenumber)))
        ds[f"power_{kind}"] = (("system", "variable", "band", "wavenumber"), power, {"long_name": TEXTS[kind]})
    bins = {kind: _by_case(results, f"bins_{kind}", (len(basis.bands), len(edges) - 1)) for kind in KINDS}
    ds = ds.assign(_ratios(bins, middle)).assign(truth_standard_error=_truth_error(results, edges))
    ds = ds.assign(_scale_error(results, edges))
    return [ds.assign(_paired_errors(results, ds)).assign(ralsd=_log_distance(ds["spectral_ratio"]))]


def _paired_errors(results: "Results", ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """Relative standard errors of ratios, from the scatter between cases; from the modes where cases are few.

    Numerator and denominator are of the same cases, so what both have in common cancels.
    """
    shape = (ds.sizes["band"], ds.sizes["scale"])
    many = ds["independent_cases"] >= LEAST_BLOCKS
    errors = {}
    for name, (above, below), root, few in (
        (
            "spectral_ratio",
            ("members", "truth"),
            1.0,
            np.fmax(ds["truth_standard_error"], 2 * ds["scale_standard_error"]),
        ),
        ("spread_skill_by_scale", ("variance", "error"), 0.5, ds["scale_standard_error"]),
    ):
        scatter = root * results.table(partial(_scatter, results, f"bins_{above}", f"bins_{below}"), shape)
        text = f"relative standard error of {name}: scatter of cases, or number of modes under {LEAST_BLOCKS} cases"
        paired = xr.DataArray(scatter, dims=("system", "variable", "band", "scale"))
        errors[f"{name}_error"] = paired.where(many, few).assign_attrs(long_name=text, units="1")
    return errors


def _scatter(results: "Results", above: str, below: str, system: str, field: str) -> np.ndarray | None:
    """Relative standard error of a ratio of sums over cases (Cochran 1977, equation 6.9)."""
    tally = results.tally(system, field)
    if tally is None or len(tally.cases) < LEAST_CASES:
        return None
    x, y = tally.stacked(above), tally.stacked(below)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = x - x.sum(axis=0) / y.sum(axis=0) * y
        total = (residual**2).sum(axis=0) * results.lengths[field] * len(x) / (len(x) - 1)
        return np.asarray(np.sqrt(total) / x.sum(axis=0))


def _log_distance(ratio: xr.DataArray) -> xr.DataArray:
    """RALSD of CORDEX-ML-Bench (arXiv:2606.29172): rms of the log-spectral difference in dB, where there is one."""
    decibels: xr.DataArray = 10 * xr.ufuncs.log10(ratio.where(ratio > 0))
    distance: xr.DataArray = xr.ufuncs.sqrt((decibels**2).mean(dim=["band", "scale"]))
    text = "root mean square over bands and half-octave bins of 10 log10(power of members / power of truth)"
    return distance.assign_attrs(long_name=text, units="dB")


def _scale_error(
    results: "Results", edges: np.ndarray
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    """Relative standard error of spread over error by scale, from the number of modes and of independent cases.

    The power of the error, a sum of squares with f degrees of freedom, is known to sqrt(2 / f); its root to half that.
    """
    cases = np.array([len(results.cases) / results.lengths[field] for field in results.fields])
    with np.errstate(divide="ignore"):
        error = 0.5 * np.sqrt(2 / (results.panel.domain.basis.degrees(edges) * cases[:, None, None]))
    text = "relative standard error of spread_skill_by_scale, from the number of modes"
    return {
        "scale_standard_error": (("variable", "band", "scale"), error, {"long_name": text, "units": "1"}),
        "independent_cases": (("variable",), cases, {"long_name": "cases over the number that hang together"}),
    }


def _total(results: "Results", name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Mean over cases."""

    def value(system: str, field: str) -> np.ndarray | None:
        tally = results.tally(system, field)
        return None if tally is None else tally.total[name] / len(tally.cases)

    return results.table(value, shape)


def _by_case(results: "Results", name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over cases of the binned power."""

    def value(system: str, field: str) -> np.ndarray | None:
        tally = results.tally(system, field)
        return None if tally is None else tally.stacked(name).sum(axis=0)

    return results.table(value, shape)


def _ratios(
    bins: dict[str, np.ndarray], middle: np.ndarray
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    dims = ("system", "variable", "band", "scale")
    uncertain = np.maximum(bins["variance"], bins["error"]) > KNOWN * bins["truth"]
    noise = unresolved(np.fmax(bins["members"], bins["truth"]), middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "spectral_ratio": (bins["members"] / bins["truth"], "power of members over power of the truth"),
            "mean_spectral_ratio": (bins["mean"] / bins["truth"], "power of the ensemble mean over power of the truth"),
            "spread_skill_by_scale": (
                np.where(uncertain, np.sqrt(bins["variance"] / bins["error"]), np.nan),
                "spread over RMSE of the mean, by scale",
            ),
            "coherence": (
                bins["cross"] / np.sqrt(bins["mean"] * bins["truth"]),
                "correlation of mean and truth, by scale",
            ),
        }
    return {
        name: (dims, np.where(noise, np.nan, value), {"long_name": text, "units": "1"})
        for name, (value, text) in values.items()
    }


def _truth_error(results: "Results", edges: np.ndarray) -> xr.DataArray:
    """Relative standard error of the truth's power: from the scatter of cases, else from the number of modes.

    Cases that hang together count as one: the variance of the mean of n cases is multiplied by the block length.
    """
    basis = results.panel.domain.basis
    shape = (len(basis.bands), len(edges) - 1)
    degrees = basis.degrees(edges)

    def value(_: str, field: str) -> np.ndarray | None:
        tally = results.tally(results.systems[0], field)
        if tally is None:
            return None
        power = tally.stacked("bins_truth")
        with np.errstate(invalid="ignore", divide="ignore"):
            if len(power) < LEAST_CASES:
                return np.asarray(np.sqrt(2 / degrees))
            length = results.block or block_length(power.reshape(len(power), -1))
            scatter = power.std(axis=0, ddof=1) * np.sqrt(length / len(power))
            return np.asarray(scatter / power.mean(axis=0))

    error = results.table(value, shape, results.systems[:1])[0]
    text = "relative standard error of the power of the truth (scatter of cases, or number of modes under 3 cases)"
    return xr.DataArray(error, dims=("variable", "band", "scale"), attrs={"long_name": text, "units": "1"})
