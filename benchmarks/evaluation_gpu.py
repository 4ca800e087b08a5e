"""The tasks of ``benchmarks/evaluation.py`` on one GPU: data that lie there already, and data that come from the host.

Every row runs once before it is timed, which loads libraries and fills PyTorch's cache of freed memory; the time is the
least of the runs by the clock, with the device waited for. Memory is the highest that tensors took on the device beyond
the data that lay there before. Every number is checked against that of numpy on the same data.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
import xarray as xr
from evaluation_rows import TASKS, Size, flat, ours, ours_spectrum

from sciffusion.evaluation.backend import Backend, backend_of
from sciffusion.evaluation.crps import crps
from sciffusion.evaluation.multivariate import energy_score
from sciffusion.evaluation.ranks import rank_bins
from sciffusion.evaluation.spectra import Shells
from sciffusion.execution.device import resolve_device

__all__ = ["HOST", "NUMPY", "PLACED", "measured", "table"]

NUMPY, HOST, PLACED = "ours, numpy on the CPU", "ours, data from the host", "ours, data on the GPU"
PEER = "scoringrules (torch), data on the GPU"
AGREED = 1e-9  # relative difference from numpy: sums are float64, in another order
Call = Callable[[], float]


def placed_crps(backend: Backend, members: torch.Tensor, truth: torch.Tensor) -> float:
    return float(crps(members, truth, backend=backend).mean())


def placed_ranks(backend: Backend, members: torch.Tensor, truth: torch.Tensor) -> float:
    bins = len(members) + 1
    counts = torch.bincount(rank_bins(members, truth.reshape(-1), bins, backend=backend), minlength=bins)
    return float(counts[0] / counts.double().mean())


def placed_energy(backend: Backend, members: torch.Tensor, truth: torch.Tensor) -> float:
    weights = np.ones(truth.shape[1:])
    scores = [energy_score(members[:, i], truth[i], weights, backend) for i in range(len(truth))]
    return float(np.mean(scores))


def placed_spectrum(backend: Backend, values: torch.Tensor) -> float:
    shells = Shells(tuple(values.shape[1:]), (1.0, 1.0), (True, True))
    return float(shells.power(values, backend).mean(axis=0).sum())


def peer_crps(members: torch.Tensor, truth: torch.Tensor) -> float:
    import scoringrules

    return float(scoringrules.crps_ensemble(truth, members, m_axis=0, estimator="pwm", backend="torch").mean())


def peer_energy(members: torch.Tensor, truth: torch.Tensor) -> float:
    import scoringrules

    cells = flat(members, truth)
    score = scoringrules.es_ensemble(cells[1], cells[0], estimator="fair", backend="torch")
    return float(score.mean() / cells[1].shape[1] ** 0.5)


ON_DEVICE = {"crps": placed_crps, "ranks": placed_ranks, "energy": placed_energy, "spectrum": placed_spectrum}
PEERS = {"crps": peer_crps, "energy": peer_energy}


def measured(size: Size, repeats: int, device: str, save: Callable[[dict], None]) -> dict:
    """All rows; ``save`` gets the results after every one."""
    place = resolve_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else device
    results: dict = {"device": name, "torch": torch.__version__, "size": asdict(size), "tasks": {}}
    made: dict = {}
    for task, about in TASKS.items():
        data = made.setdefault(about.data, about.data(size))
        rows = results["tasks"].setdefault(task, {})
        for row, call in calls(task, data, place).items():
            rows[row] = attempted(call, repeats if row != NUMPY else 1, place)
            if "value" in rows[row]:
                exact = rows[NUMPY]["value"]
                rows[row]["difference"] = abs(rows[row]["value"] / exact - 1)
            print(task, row, rows[row], file=sys.stderr, flush=True)
            save(results)
    return results


def calls(task: str, data: tuple[xr.DataArray, ...], device: torch.device) -> dict[str, Callable[[], Call]]:
    """For every row what makes its call, the data being placed first."""
    on_host = {
        name: ours_spectrum(*given) if task == "spectrum" else ours(TASKS[task].function, *given)
        for name, given in ((NUMPY, ("numpy",)), (HOST, ("torch", str(device))))
    }
    own = partial(ON_DEVICE[task], backend_of("torch", str(device)))
    rows: dict[str, Callable[[], Call]] = {name: partial(partial, run, *data) for name, run in on_host.items()}
    rows[PLACED] = lambda: partial(own, *placed(data, device))
    if task in PEERS:
        rows[PEER] = lambda: partial(within, device, PEERS[task], *placed(data, device))
    return rows


def within(device: torch.device, call: Callable[..., float], *data: torch.Tensor) -> float:
    """What a package makes without naming a device is made on this one."""
    with device:
        return call(*data)


def placed(data: tuple[xr.DataArray, ...], device: torch.device) -> list[torch.Tensor]:
    return [torch.from_numpy(array.values).to(device) for array in data]


def attempted(prepare: Callable[[], Call], repeats: int, device: torch.device) -> dict:
    """Time, memory and number of a call, or the last line of its error."""
    try:
        return timed(prepare(), repeats, device)
    except Exception as error:  # a row that fails is a result too
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def timed(call: Call, repeats: int, device: torch.device) -> dict:
    on_gpu = device.type == "cuda"
    call()
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if on_gpu else 0
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        if on_gpu:
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else 0
    return {"clock_s": min(spent), "extra_mb": (peak - before) / 1e6, "value": value, "runs": repeats}


def wrong(results: dict) -> list[str]:
    """Our rows that failed or whose number is not numpy's."""
    return [
        f"{task}, {name}: {row.get('error', row.get('difference'))}"
        for task, rows in results["tasks"].items()
        for name, row in rows.items()
        if name != PEER and not row.get("difference", 1.0) <= AGREED
    ]


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = ["| task | way | ms | MB beyond the data | difference from numpy |", "|---|---|---|---|---|"]
    for task, rows in results["tasks"].items():
        words = TASKS[task].words.format(**results["size"])
        for name, row in rows.items():
            numbers = (
                f"{1e3 * row['clock_s']:.1f} | {row['extra_mb']:.0f} | {row['difference']:.0e}"
                if "value" in row
                else f"| | {row['error']}"
            )
            lines.append(f"| {words} | {name} | {numbers} |")
            words = ""
    return "\n".join(lines)
