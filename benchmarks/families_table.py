"""The rows that there are, as Markdown: seeds of a recipe together, the best CRPS first."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciffusion.datasets import PROBLEMS

__all__ = ["Entry", "best_yardstick", "grouped", "line", "log_power", "read", "table"]

Entry = dict[str, Any]

EMPTY = 1e-9  # share of the largest shell's power
# title -> (key or function of a row, format)
COLUMNS: dict[str, tuple[Callable[[Entry], float], str]] = {
    "CRPS ratio": (lambda r: r["crps_ratio"], ".3f"),
    "spread/skill": (lambda r: r["spread_skill"], ".3f"),
    "RALSD (dB)": (lambda r: r["ralsd"], ".2f"),
    "log-power rms": (lambda r: log_power(r), ".3f"),
    "coarse rms": (lambda r: np.nan if r["coarse_rms"] is None else r["coarse_rms"], ".1e"),
    "calls": (lambda r: r["calls_per_member"], ".0f"),
    "ms/member": (lambda r: 1000 * r["seconds_per_member"], ".2f"),
    "minutes": (lambda r: r["training_minutes"], ".1f"),
    "parameters (M)": (lambda r: r["parameters"] / 1e6, ".1f"),
}


def read(folder: Path) -> list[Entry]:
    """All rows, those of a problem over one yardstick."""
    entries = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    for entry in entries:
        if entry.get("exact_crps") is None:
            over = entry["yardstick_crps"] / best_yardstick(entry["problem"], entries)["yardstick_crps"]
            entry["crps_ratio"] *= over
            entry["crps_ratio_interval"] = (over * np.array(entry["crps_ratio_interval"])).tolist()
    return entries


def best_yardstick(problem: str, entries: Sequence[Entry]) -> Entry:
    """The row with the best yardstick: regressions are fitted in the units of a recipe, which may be roots of them."""
    return min((entry for entry in entries if entry["problem"] == problem), key=lambda entry: entry["yardstick_crps"])


def log_power(entry: Entry, of: str = "members") -> float:
    """Rms over shells of wavenumber up to the grid's Nyquist of the log ratio of power to the truths'.

    Shells where the truths have none are left out: beyond the truncation of a spectral model there is rounding alone.
    """
    spectra, truth = entry["spectra"], np.array(entry["spectra"]["truth"])
    inner = np.array(spectra["wavenumber"]) <= nyquist(entry["problem"])  # the last ones are in the grid's corners
    inner &= truth > EMPTY * truth.max()
    return float(np.sqrt(np.mean(np.log(np.divide(spectra[of], truth)[inner]) ** 2)))


def nyquist(problem: str) -> float:
    """Largest wavenumber along an axis of a simulated problem; of others infinity."""
    found = PROBLEMS.get(problem)
    return np.inf if found is None else found.shape[-1] / 2 / found.length


def grouped(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Rows by recipe, the best CRPS first."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry["recipe"], []).append(entry)
    return dict(sorted(found.items(), key=lambda item: np.mean([entry["crps_ratio"] for entry in item[1]])))


def line(entries: Sequence[Entry]) -> str:
    """One line: values, or mean and standard deviation over seeds."""
    cells = [entries[0]["recipe"]]
    for value, form in COLUMNS.values():
        values = [value(entry) for entry in entries]
        spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 and len(set(values)) > 1 else ""
        cells.append("" if np.isnan(values).all() else f"{np.mean(values):{form}}{spread}")
    return f"| {' | '.join(cells)} |"


def table(entries: Sequence[Entry]) -> list[str]:
    """The lines of a problem's table."""
    head = ["recipe", *COLUMNS]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *map(line, grouped(entries).values())]
