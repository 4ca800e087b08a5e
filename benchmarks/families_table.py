"""The rows that there are, as Markdown: seeds of a recipe together, the best CRPS first, and whether a row is good."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciffusion.datasets import PROBLEMS

__all__ = ["Entry", "grouped", "line", "log_power", "reached", "read", "table"]

Entry = dict[str, Any]
FEW, BEST = ("progressive", "ect", "scd", "sct", "meanflow"), ("edm", "dit", "flow", "corrdiff")  # recipes

# title -> (key or function of a row, format)
COLUMNS: dict[str, tuple[Callable[[Entry], float], str]] = {
    "CRPS ratio": (lambda r: r["crps_ratio"], ".3f"),
    "spread/skill": (lambda r: r["spread_skill"], ".3f"),
    "RALSD (dB)": (lambda r: r["ralsd"], ".2f"),
    "log-power rms": (lambda r: log_power(r), ".3f"),
    "coarse rms": (lambda r: r["coarse_rms"], ".1e"),
    "calls": (lambda r: r["calls_per_member"], ".0f"),
    "ms/member": (lambda r: 1000 * r["seconds_per_member"], ".2f"),
    "minutes": (lambda r: r["training_minutes"], ".1f"),
    "parameters (M)": (lambda r: r["parameters"] / 1e6, ".1f"),
}


def read(folder: Path) -> list[Entry]:
    """All rows."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def log_power(entry: Entry, of: str = "members") -> float:
    """Rms over shells of wavenumber up to the grid's Nyquist of the log ratio of power to the truths'."""
    spectra = entry["spectra"]
    inner = np.array(spectra["wavenumber"]) <= nyquist(entry["problem"])  # the last ones are in the grid's corners
    return float(np.sqrt(np.mean(np.log(np.divide(spectra[of], spectra["truth"])[inner]) ** 2)))


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
        cells.append(f"{np.mean(values):{form}}{spread}")
    return f"| {' | '.join(cells)} |"


def table(entries: Sequence[Entry]) -> list[str]:
    """The lines of a problem's table."""
    head = ["recipe", *COLUMNS]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *map(line, grouped(entries).values())]


def reached(entries: Sequence[Entry], others: dict[str, list[Entry]]) -> list[str]:
    """What a recipe misses of what was aimed for where the exact answer is known; empty: nothing."""
    mean = {key: float(np.mean([entry[key] for entry in entries])) for key in ("crps_ratio", "spread_skill", "ralsd")}
    name, teacher = entries[0]["recipe"], others.get("edm")
    if name in BEST:
        power = float(np.mean([log_power(entry) for entry in entries]))
        aims = {
            "CRPS within 2 %": mean["crps_ratio"] <= 1.02,
            "spread/skill 0.97 to 1.03": 0.97 <= mean["spread_skill"] <= 1.03,
            "log-power error below 0.05": power < 0.05,
        }
    elif name in FEW and teacher:
        of_teacher = {key: float(np.mean([entry[key] for entry in teacher])) for key in mean}
        aims = {
            "CRPS within 3 % of the teacher's": mean["crps_ratio"] <= 1.03 * of_teacher["crps_ratio"],
            "spread/skill within 3 % of the teacher's": abs(mean["spread_skill"] / of_teacher["spread_skill"] - 1)
            <= 0.03,
            "RALSD at most 0.2 dB above the teacher's": mean["ralsd"] <= of_teacher["ralsd"] + 0.2,
        }
    else:
        aims = {"CRPS within 10 %": mean["crps_ratio"] <= 1.10}
    return [aim for aim, met in aims.items() if not met]
