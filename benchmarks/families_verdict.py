"""Whether rows of the family table are good: what was aimed for and reached, which differences are more than chance.

A group is the rows of one recipe with different seeds; where several numbers are compared it is their mean.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from families_experiment import DISTILLED
from families_table import Entry, log_power

__all__ = ["judgement"]

Groups = Mapping[str, Sequence[Entry]]
BEST = ("edm", "dit", "flow", "corrdiff")
RANKED = "edm"  # whose seeds say what chance does


def judgement(problem: str, groups: Groups) -> list[str]:
    """Lines of Markdown: aims reached and missed, floors of autoencoders, what seeds allow to rank."""
    misses = {name: missed(entries, groups) for name, entries in groups.items() if aims(entries, groups)}
    lines = []
    if misses:
        good = ", ".join(f"`{name}`" for name, those in misses.items() if not those)
        lines += [f"Aims reached: {good or 'none'}.", ""]
        lines += [f"- `{name}` misses: {'; '.join(those)}." for name, those in misses.items() if those]
    lines += [line for name, entries in groups.items() for line in (*rainfall(name, entries), *floors(name, entries))]
    lines += ["", *seeds(groups)]
    return "\n".join(lines).strip().split("\n")


def missed(entries: Sequence[Entry], groups: Groups) -> list[str]:
    """The aims that a recipe misses; empty: none."""
    return [aim for aim, met in aims(entries, groups).items() if not met]


def aims(entries: Sequence[Entry], groups: Groups) -> dict[str, bool]:
    """What is asked of a recipe on this problem, and whether it does it."""
    if entries[0]["problem"].startswith("grf"):
        return gaussian_aims(entries, groups)
    asked = rain_aims(entries) if entries[0].get("rain") else {}
    rival = groups.get("crps")
    if rival is not None and entries[0]["recipe"] != "crps":
        asked["RALSD below that of `crps`"] = mean(entries, "ralsd") < mean(rival, "ralsd")
    return asked


def gaussian_aims(entries: Sequence[Entry], groups: Groups) -> dict[str, bool]:
    """Where the exact answer is known."""
    name, teacher = entries[0]["recipe"], groups.get("edm")
    ratio, spread = mean(entries, "crps_ratio"), mean(entries, "spread_skill")
    if name in BEST:
        return {
            "CRPS within 2 %": ratio <= 1.02,
            "spread/skill 0.97 to 1.03": 0.97 <= spread <= 1.03,
            "log-power error below 0.05": mean(entries, log_power) < 0.05,
        }
    if name in DISTILLED and teacher:
        return {
            "CRPS within 3 % of the teacher's": ratio <= 1.03 * mean(teacher, "crps_ratio"),
            "spread/skill within 3 % of the teacher's": abs(spread / mean(teacher, "spread_skill") - 1) <= 0.03,
            "RALSD at most 0.2 dB above the teacher's": mean(entries, "ralsd") <= mean(teacher, "ralsd") + 0.2,
        }
    return {"CRPS within 10 %": ratio <= 1.10}


def rain_aims(entries: Sequence[Entry]) -> dict[str, bool]:
    """Where the variable is precipitation."""
    parts = [entry["rain"] for entry in entries]
    wet, high = (np.mean([part[key] / part[f"true_{key}"] for part in parts]) for key in ("wet", "high"))
    return {
        "wet area within 5 %": abs(wet - 1) <= 0.05,
        "99.9 % quantile within 10 %": abs(high - 1) <= 0.10,
        "nothing negative": min(part["least"] for part in parts) >= 0,
    }


def rainfall(name: str, entries: Sequence[Entry]) -> list[str]:
    """The numbers behind the aims for precipitation."""
    part = entries[0].get("rain")
    if not part:
        return []
    wet, high = (f"{part[key]:.4g} (truths: {part[f'true_{key}']:.4g})" for key in ("wet", "high"))
    numbers = f"area with 0.1 mm or more {wet}, 99.9 % quantile {high} m, least {part['least']:g}"
    return [f"- `{name}`: {numbers}."]


def floors(name: str, entries: Sequence[Entry]) -> list[str]:
    """What the autoencoders of a recipe lose by themselves, on held-out cases, on average over variables."""
    lines = []
    for stage, floor in (entries[0].get("reconstruction_floor") or {}).items():
        crps, ralsd = (np.mean([values[key] for values in floor.values()]) for key in ("crps", "ralsd"))
        lines.append(f"- `{name}`: its {stage} alone, decode(encode(x)), has a CRPS of {crps:.4g} and {ralsd:.2f} dB.")
    return lines


def seeds(groups: Groups) -> list[str]:
    """Which recipes differ from ``RANKED`` in CRPS by more than two standard deviations of its seeds."""
    ours = [entry["crps_ratio"] for entry in groups.get(RANKED, [])]
    if len(ours) < 2:
        return []
    sd, others = float(np.std(ours, ddof=1)), [name for name in groups if name != RANKED]
    apart = [name for name in others if abs(mean(groups[name], "crps_ratio") - np.mean(ours)) > 2 * sd]
    alike = [name for name in others if name not in apart]
    listed = ", ".join(f"`{name}`" for name in alike) or "none"
    return [f"{len(ours)} seeds of `{RANKED}` differ by {sd:.4f} (sd). Within two of these of its CRPS: {listed}."]


def mean(entries: Sequence[Entry], of: str | Callable[[Entry], float]) -> float:
    """Mean of a key, or of a function, over rows."""
    return float(np.mean([entry[of] if isinstance(of, str) else of(entry) for entry in entries]))
