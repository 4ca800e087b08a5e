"""What the rows of turbulence.py say: losses by network, and their differences from PhysicsNeMo's SongUNet by seed."""

import json
from pathlib import Path

import numpy as np
from speed_rows import PEERS

PEER = PEERS[0]


def table(folder: Path) -> str:
    """Markdown: per network, rate and number of samples the losses of its seeds; below, differences from the peer."""
    groups: dict[tuple, dict[int, dict]] = {}
    for path in sorted(folder.glob("*.json")):
        row = json.loads(path.read_text())
        groups.setdefault((row["samples"], row["network"], row["rate"]), {})[row["seed"]] = row
    lines = [
        "| network | rate | samples | parameters | TFLOP/field | samples/s | loss by seed | mean (sd) |",
        f"|{'---|' * 8}",
    ]
    for (samples, name, rate), found in sorted(groups.items(), key=lambda group: np.mean(_losses(group[1]))):
        one, losses = next(iter(found.values())), ", ".join(f"{loss:.4f}" for loss in _losses(found))
        size = f"{one['parameters'] / 1e6:.1f} M | {one['tflop_per_field']:.3f}"
        speeds = [row["samples_per_s"] for row in found.values() if row["samples_per_s"]]  # of long enough ones
        speed = f"{max(speeds):.0f}" if speeds else "-"
        lines.append(f"| {name} | {rate:g} | {samples} | {size} | {speed} | {losses} | {_spread(_losses(found))} |")
    return "\n".join([*lines, *differences(groups)])


def differences(groups: dict[tuple, dict[int, dict]]) -> list[str]:
    """Each network's loss less the peer's, of the same seeds and fields.

    Both at the rate with the most seeds; of several, at the best.
    """
    chosen: dict[tuple, dict[int, dict]] = {}
    for (samples, name, _), found in groups.items():
        other = chosen.get((samples, name), {})
        if not other or (-len(found), np.mean(_losses(found))) < (-len(other), np.mean(_losses(other))):
            chosen[samples, name] = found
    lines = []
    for (samples, name), found in sorted(chosen.items()):
        peer = chosen.get((samples, PEER), {})
        seeds = sorted(s for s in {*found} & {*peer} if found[s].get("fields") == peer[s].get("fields"))
        if name != PEER and seeds:
            apart = [found[seed]["loss"] - peer[seed]["loss"] for seed in seeds]
            share = 100 * sum(apart) / sum(peer[seed]["loss"] for seed in seeds)
            lines.append(
                f"\n{name} less {PEER}, {samples} samples, seeds {', '.join(map(str, seeds))}: "
                f"{_spread(apart)}, {share:+.1f} %; {sum(gap <= 0 for gap in apart)} of {len(apart)} no worse"
            )
    return lines


def _losses(found: dict[int, dict]) -> list[float]:
    return [found[seed]["loss"] for seed in sorted(found)]


def _spread(values: list[float]) -> str:
    """Mean and, of several, the standard deviation."""
    return f"{np.mean(values):.4f}" + (f" ({np.std(values, ddof=1):.4f})" if len(values) > 1 else "")
