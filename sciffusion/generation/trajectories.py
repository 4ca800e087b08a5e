"""How much members hang together in time: measured on what was made, and written down with it."""

import json
import logging
from collections.abc import Sequence

import numpy as np
import zarr

from sciffusion.fields.cases import Case
from sciffusion.fields.coherence import Coherence
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.output import writing

__all__ = ["record_coherence"]

log = logging.getLogger("sciffusion")
MEASURED = "time_coherence_measured"  # attribute: correlation at lag 1 by variable, as JSON
PAIRS, MEMBERS = 8, 16  # at most so many are read


def record_coherence(store: EnsembleStore, coherence: Coherence, cases: Sequence[Case], members: int) -> None:
    """Write the lag-1 correlation of members' deviations from their mean into the attributes of ``store``.

    ``cases`` are in the order of the store, the first ``members`` rows of which are there. Nothing is written where
    there are no two members or no two consecutive cases.
    """
    pairs, rows = _pairs(cases), slice(0, min(members, MEMBERS))
    if rows.stop < 2 or not pairs:
        return
    found = {}
    for name in store.variables:
        fields = [[store.read(case, name, members=rows) for case in pair] for pair in pairs]
        product, one, two = np.sum([coherence.measured(*both) for both in fields], axis=0)
        found[name] = round(float(product / np.sqrt(one * two)), 4)
    with writing(store.path):
        zarr.open_group(store.path, mode="r+").attrs[MEASURED] = json.dumps(found)
    log.info("time coherence, measured at lag 1: %s", ", ".join(f"{name} {value:g}" for name, value in found.items()))


def _pairs(cases: Sequence[Case]) -> list[tuple[int, int]]:
    """Numbers of (earlier, later) cases one step apart, a few spread over all."""
    number = {case.labels: index for index, case in enumerate(cases)}
    pairs = [
        (number[case.past[1][1]], i) for i, case in enumerate(cases) if case.past[1:] and case.past[1][1] in number
    ]
    chosen = np.linspace(0, len(pairs) - 1, min(PAIRS, len(pairs))).astype(int)
    return [pairs[i] for i in chosen]
