"""``sciffusion demo``: the main job on the embedded data, with a pretrained emulator: sample, compare, report."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.errors import SciffusionError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "sample and score an ensemble of real fields that the shipped emulator never saw (no network, a few minutes)"
EXAMPLE = "sciffusion demo --members 8 --times 3"
MODEL = Path(__file__).parents[1] / "pretrained" / "era5_week"
EXPERIMENT = Path(__file__).parents[1] / "datasets" / "era5_week.yaml"
BASELINES = ("interpolation", "linear", "climatology")
ENSEMBLE = "ensemble.zarr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--output", "-o", default="demo-output", help="folder for stores and report (demo-output)")
    parser.add_argument("--members", type=int, default=8, help="ensemble members per time (8)")
    parser.add_argument("--times", type=int, default=3, help="how many of the held-out times (3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Sample, make the baselines, evaluate, write the report and print the scorecard."""
    folder = Path(args.output)
    _check(args, folder)
    import sciffusion as sf

    emulator = sf.load(MODEL)
    conditions, cases = _held_out(args.times)
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"{emulator!r}; held-out times: {_count(cases)}, members each: {args.members}")
    seconds = _generate(emulator, args, conditions, cases, folder / ENSEMBLE)
    drawn = args.members * _count(cases)
    _say(f"{drawn} members in {seconds:.0f} s, {seconds / drawn:.1f} s each")
    _say(f"the same from the baselines: {', '.join(BASELINES)}")
    for name in BASELINES:
        _generate(sf.load(MODEL / "baselines" / name), args, conditions, cases, folder / f"{name}.zarr")
    _say("scoring against the truth, and drawing the report")
    _report(folder, emulator, cases, seconds / drawn)
    return 0


def _check(args: argparse.Namespace, folder: Path) -> None:
    """Refuse, before any work, what cannot succeed."""
    if args.members < 2 or args.times < 1:
        raise SciffusionError(f"--members {args.members} --times {args.times}", "at least 2 members and 1 time")
    if not MODEL.is_dir():
        raise SciffusionError(f"{MODEL}: the pretrained emulator is missing", "see `sciffusion doctor`")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / ENSEMBLE).exists()):
        raise SciffusionError(f"{folder} exists and is not of an earlier demo", "name another folder with --output")


def _held_out(times: int) -> tuple[Mapping[str, "xr.Dataset"], dict[str, list[Any]]]:
    """Conditions of the emulator's own experiment, and test times spread evenly over those it held out."""
    from sciffusion.generation import held_out

    conditions, cases = held_out(EXPERIMENT)
    labels = list((cases or {})["time"])
    number = min(times, len(labels))
    step = (len(labels) - 1) / max(number - 1, 1)
    return conditions, {"time": [labels[round(index * step)] for index in range(number)]}


def _generate(emulator: Any, args: argparse.Namespace, conditions: Any, cases: dict[str, Any], path: Path) -> float:
    """Sample into a store, in place of an earlier demo's. Returns the seconds it took."""
    import sciffusion as sf

    started = time.perf_counter()
    options = {"seed": args.seed, "device": args.device, "overwrite": True}
    sf.generate(emulator, conditions, path, args.members, cases=cases, **options)
    return time.perf_counter() - started


def _report(folder: Path, emulator: Any, cases: dict[str, Any], seconds: float) -> None:
    """Scores as NetCDF, the report as HTML, the scorecard on the terminal."""
    import sciffusion as sf
    from sciffusion.fields.coarsen import regrid
    from sciffusion.fields.ensemble import open_ensemble

    ensemble = open_ensemble(folder / ENSEMBLE)
    truth = sf.datasets.open_example("era5")[list(ensemble.data_vars)].sel(cases)
    evaluation = sf.evaluate(
        ensemble.assign_attrs(seconds_per_member=round(seconds, 2)),
        truth,
        baselines={name: open_ensemble(folder / f"{name}.zarr") for name in BASELINES},
        coarse=regrid(truth, emulator.stage.conditioners["coarse"].coarse_grid, emulator.stage.codec.grid),
    )
    evaluation.to_netcdf(folder / "scores.nc")
    evaluation.to_html(folder / "report.html")
    print(f"\n{evaluation.summary()}\n")
    _say(f"ensemble: {folder / ENSEMBLE}")
    _say(f"report: {(folder / 'report.html').resolve()}")


def _count(cases: Mapping[str, list[Any]]) -> int:
    return len(cases["time"])


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)
