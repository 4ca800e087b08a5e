"""The job that `generation.py` times: an emulator with an untrained network, and the same job done the obvious way."""

import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import open_experiment
from sciffusion.emulator import Emulator, load
from sciffusion.stages.build import build_stage
from sciffusion.stages.items import Item

FIRST = np.datetime64("2001-01-01", "ns")
TRAINING = 4  # cases whose statistics the codec takes

NETWORKS = {
    "50": {"kind": "unet", "channels": 256, "multipliers": [1, 2, 2, 2], "blocks": 2, "patch": 2, "dropout": 0.0},
    "tiny": {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "embedding": 8},
}


def prepare(folder: Path, side: int, variables: int, cases: int, network: str, steps: int) -> Path:
    """Make data of so many cases and an emulator for them in ``folder``, unless they are there."""
    if not (folder / "emulator" / "model.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        fields(side, variables, cases).to_netcdf(folder / "fields.nc")
        experiment = load_experiment(settings(folder, variables, cases, network, steps))
        torch.manual_seed(0)
        stage = build_stage(experiment.stages[0], experiment, open_experiment(experiment), {})
        for parameter in stage.parameters():
            if not parameter.any():  # answers of a network that starts at zero are not those of a trained one
                torch.nn.init.normal_(parameter, std=0.02)
        Emulator([stage], {"recipe": "edm"}).save(folder / "emulator")
    return folder


def fields(side: int, variables: int, cases: int) -> xr.Dataset:
    """Smooth random fields on a periodic plane."""
    rng = np.random.default_rng(0)
    waves = np.fft.fftfreq(side, 1 / side)
    damping = 1 / (1 + waves[:, None] ** 2 + waves[None, : side // 2 + 1] ** 2)
    times = FIRST + np.arange(TRAINING + cases) * np.timedelta64(1, "D")
    data = {}
    for index in range(variables):
        noise = np.fft.rfft2(rng.standard_normal((len(times), side, side)))
        field = np.fft.irfft2(noise * damping, s=(side, side))
        data[f"v{index}"] = (("time", "y", "x"), (field / field.std()).astype(np.float32), {"units": "1"})
    return xr.Dataset(data, {"time": times})


def settings(folder: Path, variables: int, cases: int, network: str, steps: int) -> dict:
    names = {f"v{index}": {} for index in range(variables)}
    last = [str(FIRST + np.timedelta64(days, "D"))[:10] for days in (TRAINING - 1, TRAINING, TRAINING + cases - 1)]
    source = {"source": {"paths": [str(folder / "fields.nc")]}, "variables": names}
    stage = {"name": "denoiser", "kind": "denoiser", "baseline": "coarse", "constraint": "coarse"}
    return {
        "output": str(folder / "run"),
        "target": {**source, "dims": ["y", "x"], "periodic": ["y", "x"]},
        "conditions": {"coarse": {"kind": "coarse", "variables": list(names), "factor": 4}},
        "split": {"dim": "time", "train": [[str(FIRST)[:10], last[0]]], "test": [[last[1], last[2]]]},
        "stages": [{**stage, "network": NETWORKS[network], "sampler": {"solver": "dpmpp-2m", "steps": steps}}],
    }


def job(folder: Path, cases: int):
    """The emulator, its conditions and the labels of the first ``cases`` cases."""
    with xr.open_dataset(folder / "fields.nc") as ds:
        times = ds.time.values[TRAINING : TRAINING + cases]
    return load(folder / "emulator"), xr.open_dataset(folder / "fields.nc"), {"time": slice(times[0], times[-1])}


def ready(emulator: Emulator, execution: dict, device: torch.device) -> None:
    """The networks in the form in which `generate` runs them for a store of ``execution``."""
    emulator.ready(device=str(device), precision=execution["precision"], compile=execution["compiled"])


def network_only(emulator: Emulator, check, execution: dict, device: torch.device, budget: float) -> float:
    """Members per second if nothing but the network's calls took time."""
    ready(emulator, execution, device)
    stage, size, calls = emulator.stage, execution["batch_size"], emulator.sampler().steps
    prepared = stage.prepare(check.conditions, check.cases[0])
    context = stage.context([prepared] * size)
    x = stage.noise([Item(prepared, member) for member in range(size)], seed=0).to(device)
    level, denoiser = torch.ones(size, device=device), stage.accelerated(x.shape[2:])

    def members() -> None:
        with torch.no_grad():
            for _ in range(calls):
                denoiser(x, level, context)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    members()
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < budget:
        members()
        done += size
    return done / (time.perf_counter() - start)


def draws_only(emulator: Emulator, check, execution: dict, device: torch.device, budget: float) -> float:
    """Members per second that are sampled and come to the host, where nothing is done with them."""
    size = execution["batch_size"]
    options = {"precision": execution["precision"], "compile": execution["compiled"], "device": str(device)}
    items = [(0, member) for member in range(1000 * size)]
    waiting, start, done, seconds = [], 0.0, 0, 0.0
    for batch in emulator.draws(check, items=items, batch_size=size, **options):
        waiting.append(batch)
        if len(waiting) < 3:  # so many are ordered ahead
            continue
        waiting.pop(0).wait()
        if not start:  # the first one records the network, and draws its noise for itself
            start = time.perf_counter()
            continue
        done, seconds = done + size, time.perf_counter() - start
        if seconds > budget:
            break
    for batch in waiting:  # leave the device idle
        batch.wait()
    return done / seconds


def pretend(emulator: Emulator, seconds: float) -> None:
    """Let the stage take so many seconds per item for its noise to become its answer, as a device would."""
    stage = emulator.stage

    def draw(items, *, seed, sampler=None, outputs=None):
        noise = stage.noise(items, seed=seed)
        time.sleep(seconds * len(items))
        return noise

    stage.draw = draw


def the_obvious_way(
    emulator: Emulator, check, members: int, size: int, store: Path, device: torch.device, *, lower: bool = False
) -> None:
    """As it is usually written: a loop over cases and batches, diffusers' sampler, one dataset, to_zarr at the end.

    ``lower``: under autocast to bfloat16.
    """
    from diffusers import EDMDPMSolverMultistepScheduler

    stage, parts = emulator.stage.to(device).eval(), []
    steps = emulator.sampler().steps
    for case in check.cases:
        prepared, rows = stage.prepare(check.conditions, case), []
        for first in range(0, members, size):
            count = min(size, members - first)
            context = stage.context([prepared] * count)
            scheduler = EDMDPMSolverMultistepScheduler(
                sigma_min=stage.noise_range.sigma_min, sigma_max=stage.noise_range.sigma_max, sigma_data=1.0
            )
            scheduler.set_timesteps(steps, device=device)
            x = torch.randn(count, *stage.output_shape, device=device) * scheduler.init_noise_sigma
            with torch.no_grad():
                for t in scheduler.timesteps:
                    with torch.autocast(device.type, torch.bfloat16, enabled=lower):
                        answer = stage.network(scheduler.scale_model_input(x, t), t.expand(count).to(x), context)
                    x = scheduler.step(answer.float(), t, x).prev_sample
            rows.append(x.cpu())
        parts.append(stage.decode(torch.cat(rows), prepared, list(range(members))))
    xr.concat(parts, "time").chunk({"member": 1, "time": 1}).to_zarr(store, mode="w")
