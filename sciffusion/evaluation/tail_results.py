"""How often values beyond the tails' thresholds occur, members over truth."""

from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.bootstrap import LEAST_BLOCKS
from sciffusion.evaluation.exceedance import QUANTILES, ratio
from sciffusion.evaluation.results import BOUNDS, Results

__all__ = ["tables"]

PAIR = ("system", "variable")
TAIL_TEXT = "95 % interval, joint over the tails; withheld when under ten blocks carry the truth's events"


def tables(results: Results) -> list[xr.Dataset]:
    """Frequency of values beyond thresholds, members over truth."""
    ds = xr.Dataset(coords={**results.coords, "tail": list(QUANTILES), "bound": BOUNDS})
    metrics = [ratio(index) for index in range(len(QUANTILES))]
    values = np.stack([results.table(partial(results.value, metric)) for metric in metrics], axis=-1)
    intervals = [partial(_tail_interval, results, index) for index in range(len(QUANTILES))]
    bounds = np.stack([results.table(interval, (2,)) for interval in intervals], axis=-2)
    marks = [results.panel.marks[field].thresholds for field in results.fields]
    text = "frequency beyond the threshold, members over truth (below it for tails under 0.5)"
    ds["exceedance_ratio"] = ((*PAIR, "tail"), values, {"long_name": text, "units": "1"})
    ds["exceedance_ratio_interval"] = ((*PAIR, "tail", "bound"), bounds, {"long_name": TAIL_TEXT})
    ds["threshold"] = (("variable", "tail"), np.array(marks), {"long_name": "quantiles of the first truth"})
    return [ds]


def _tail_interval(results: Results, index: int, system: str, field: str) -> np.ndarray | None:
    """95 % jointly over the four tails; withheld when the events of the truth happened in too few blocks."""
    sums = results.sums(system, field)
    if sums is None:
        return None
    blocks = results.resampling[field]
    if blocks.effective_blocks(sums[f"beyond_truth_{index}"]) < LEAST_BLOCKS:
        return None
    return blocks.interval(ratio(index), sums, 1 - 0.05 / len(QUANTILES))
