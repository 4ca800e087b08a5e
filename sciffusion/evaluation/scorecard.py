"""The scorecard: one row per variable and system, for terminals and for the report."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict import number, spectral_tolerance

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["bins_within", "header", "notes", "rows", "scorecard"]

NEGLIGIBLE = 1e-4  # bias over RMSE that is rounding


def header(scores: xr.Dataset) -> tuple[str, ...]:
    """Names of the columns."""
    ours = str(scores["system"].values[0])
    left = ("variable", "system", "CRPS", f"{ours}/this", "energy score", "RMSE", "bias", "spread/skill")
    return (*left, "spectral bins", "coarse rms")


def rows(scores: xr.Dataset) -> list[tuple[str, ...]]:
    """Cells as text, in the order of ``header``."""
    return [_row(scores, str(v), str(s)) for v in scores["variable"].values for s in scores["system"].values]


def scorecard(evaluation: "Evaluation") -> str:
    """Aligned ASCII table, verdicts, and how the intervals were made."""
    scores = evaluation.scores
    head = f"{scores.attrs['cases']} case(s), {scores.attrs['members']} members, scored on: {scores.attrs['sample']}"
    lines = [head, "", *_aligned([header(scores), *rows(scores)]), ""]
    for owner, one in evaluation.side_by_side.items():
        lines += _sentences(one, f"{owner}: " if evaluation.others else "")
    lines += ["", *notes(scores)]
    for owner, one in evaluation.side_by_side.items():
        if one.in_sample is not None:
            of = f" of {owner}" if evaluation.others else ""
            head = f"IN-SAMPLE{of} (cases of training or validation, no evidence of skill)"
            lines += ["", head, *_aligned([header(one.in_sample), *rows(one.in_sample)])]
    return "\n".join(lines).replace("–", "-")


def _sentences(evaluation: "Evaluation", owner: str) -> list[str]:
    """The verdicts of one ensemble, by variable."""
    lines = []
    for name, sentences in evaluation.verdicts.items():
        units = evaluation.scores["units"].sel(variable=name).item() or "no units"
        lines += [f"{owner}{name} ({units})", *(f"  - {one}" for one in sentences)]
    return lines


def notes(scores: xr.Dataset) -> list[str]:
    """How the intervals in brackets were made, for which variables, and what was not scored."""
    found: dict[str, list[str]] = {}
    for name, method in zip(scores["variable"].values, scores["interval_method"].values, strict=True):
        found.setdefault(str(method), []).append(str(name))
    intervals = [f"95 % intervals of {', '.join(names)}: {method}" for method, names in found.items()]
    skipped = [one for one in scores.attrs.get("skipped", "").split("; ") if one]
    if skipped:
        intervals.append(f"Not scored for want of a truth or of values: {len(skipped)} field(s), such as {skipped[0]}")
    return intervals


def bins_within(scores: xr.Dataset, variable: str, system: str) -> tuple[int, int]:
    """How many half-octave bins have the truth's power within tolerance, and of how many."""
    one = scores.sel(variable=variable)
    departure = one["spectral_ratio"].sel(system=system) - 1
    known = np.isfinite(departure)
    return int(((np.abs(departure) <= spectral_tolerance(one)) & known).sum()), int(known.sum())


def _row(scores: xr.Dataset, variable: str, system: str) -> tuple[str, ...]:
    one = scores.sel(variable=variable, system=system)
    ratio = ""
    if system in scores["baseline"].values:
        entry = scores.sel(variable=variable, baseline=system)
        ratio = with_interval(float(entry["crps_ratio"]), entry["crps_ratio_interval"].values)
    units = str(scores["units"].sel(variable=variable).item())
    within, known = bins_within(scores, variable, system)
    return (
        f"{variable} [{units}]" if units else variable,
        system,
        with_interval(float(one["crps"]), one["crps_interval"].values),
        ratio,
        number(float(one.get("energy_score", np.nan))),
        number(float(one["rmse"])),
        _bias(float(one["bias"]), float(one["rmse"])),
        with_interval(float(one["spread_skill"]), one["spread_skill_interval"].values),
        f"{within}/{known}",
        number(float(one["coarse_rms"]), 2),
    )


def _bias(value: float, rmse: float) -> str:
    return "0" if abs(value) < NEGLIGIBLE * rmse else number(value, 2)


def with_interval(value: float, bounds: np.ndarray) -> str:
    """``0.606 [0.58, 0.63]``."""
    text = number(value)
    return (
        f"{text} [{number(bounds[0])}, {number(bounds[1])}]"
        if np.isfinite(bounds).all() and np.isfinite(value)
        else text
    )


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
