"""Whether another network, or fewer calls, would serve the demo better: candidates beside the shipped emulator.

    python benchmarks/demo_network.py --networks weights,shipped,lean,deep          # minutes on a GPU
    python benchmarks/demo_network.py --networks deep --seed 1 --out OUT
    python benchmarks/demo_network.py --table

``weights`` is the emulator as it is shipped, ``shipped`` its network trained again, which shows what chance does. Every
other is the demo's experiment with the network that NETWORKS says, all else as it is: the same windows in the same
order. Each is scored with its own sampler at ``--calls`` calls, with the same noise for all, on the validation and the
test times, by CRPS over that of the shipped linear-Gaussian baseline. Choose by the validation times. What is there is
not made again: rows (JSON files) in ``--out``, trainings in ``--work``. Seconds on a CPU: network_cost.py, demo.py.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr
from families_row import commit

import sciffusion as sf
from sciffusion import config
from sciffusion.datasets.pairs import ExperimentData, open_experiment
from sciffusion.emulator import Emulator
from sciffusion.execution.device import describe_device, resolve_device

PACKAGE = Path(sf.__file__).parent
MODEL, EXPERIMENT = PACKAGE / "pretrained" / "era5_week", PACKAGE / "datasets" / "era5_week.yaml"
SCORES = ("crps", "spread_skill", "ralsd")
NETWORKS: dict[str, dict[str, Any]] = {
    "shipped": {},
    # The outermost level takes most of the time at few channels: half as wide, and what that saves spent further in.
    "lean": {"channels": 16, "multipliers": [1, 4, 6]},
    "deep": {"channels": 16, "multipliers": [1, 4, 6, 6]},  # and sees 58 cells in place of 26
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--networks", default=",".join(["weights", *NETWORKS]))
    add("--calls", default="20,16", help="of the network per member")
    add("--splits", default="validation,test")
    add("--seed", type=int, default=0, help="of the training")
    add("--members", type=int, default=16)
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "demo_network")
    add("--work", type=Path, help="folder for the trainings; default: --out")
    add("--toy", action="store_true", help="two steps, two members of one time: does it run?")
    add("--table", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.table:
        print(table(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    settings = config.load_experiment(EXPERIMENT)
    data = open_experiment(settings)
    judges = {split: Judge(data, split, args) for split in args.splits.split(",")}
    for name in args.networks.split(","):
        emulator = sf.load(MODEL) if name == "weights" else trained(name, settings, args)
        for calls in map(int, args.calls.split(",")):
            for split, judge in judges.items():
                path = args.out / f"{name}-{args.seed}-{calls}-{split}.json"
                if not path.is_file():
                    row = {"network": name, "seed": args.seed, "calls": calls, "split": split}
                    row |= judge(emulator, calls) | provenance(emulator, args)
                    path.write_text(json.dumps(row, indent=1))
                    print(path.stem, json.dumps(row), flush=True)


def trained(name: str, settings: config.Experiment, args: argparse.Namespace) -> Emulator:
    """The emulator of a network; trained if it is not there, or going on where it stopped."""
    gpu = resolve_device(args.device).type == "cuda"
    run = (args.work or args.out) / f"{name}-{args.seed}"
    changed = settings.model_dump(mode="json") | {"output": str(run.resolve())}
    changed["stages"][0]["network"] |= NETWORKS[name]
    changed["train"] |= {"seed": args.seed, "compile": gpu, "accelerator": "cuda" if gpu else "cpu", "workers": 0}
    if args.toy:
        changed["train"] |= {"steps": 2, "warmup": 1, "batch_size": 2}
    return sf.train(config.load_experiment(changed), progress=False)


class Judge:
    """Scores ensembles of the times of a split."""

    def __init__(self, data: ExperimentData, split: str, args: argparse.Namespace) -> None:
        self.conditions, self.args = data.conditions, args
        times = [case.values["time"] for case in data.cases[split]][: 1 if args.toy else None]
        self.cases, self.members = {"time": times}, 2 if args.toy else args.members
        self.linear = self._drawn(sf.load(MODEL / "baselines" / "linear"), seed=1)
        self.truth = sf.datasets.open_example("era5")[list(self.linear.data_vars)].sel(self.cases).load()

    def __call__(self, emulator: Emulator, calls: int) -> dict[str, Any]:
        """The scores of each variable, and their mean ratio of CRPS."""
        sampler = emulator.sampler().model_copy(update={"steps": calls})
        ensemble = self._drawn(emulator, seed=0, sampler=sampler, device=self.args.device)
        found = sf.evaluate(ensemble, self.truth, baselines={"linear": self.linear}, brief=True).scores
        own = found.isel(system=0)
        named = {name: _by_variable(own[name]) for name in SCORES} | {"ratio": _by_variable(found["crps_ratio"][0])}
        mean = float(found["crps_ratio"].mean())
        return named | {"mean_ratio": mean, "solver": sampler.solver, "members": self.members}

    def _drawn(self, emulator: Emulator, **how: Any) -> xr.Dataset:
        return emulator.sample(self.conditions, self.members, cases=self.cases, **how)


def _by_variable(values: xr.DataArray) -> dict[str, float]:
    return {str(name): round(float(value), 5) for name, value in zip(values["variable"].values, values, strict=True)}


def provenance(emulator: Emulator, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "parameters": sum(p.numel() for p in emulator.stage.network.parameters()),
        "training_s": emulator.card["seconds"],
        "device": describe_device(resolve_device(args.device)),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def table(folder: Path) -> str:
    """Markdown, the lowest mean ratio first."""
    rows = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    variables = sorted({variable for row in rows for variable in row["ratio"]})
    lines = [
        f"| times | network, seed | calls | ratio {', '.join(variables)} | mean | spread/skill | RALSD (dB) |",
        f"|{'---|' * 7}",
    ]
    for row in sorted(rows, key=lambda row: (row["split"] == "test", row["mean_ratio"])):
        ratios, spreads, distances = (
            " ".join(f"{row[name][variable]:.3f}" for variable in variables)
            for name in ("ratio", "spread_skill", "ralsd")
        )
        who = f"{row['split']} | {row['network']}, {row['seed']} | {row['calls']}"
        lines.append(f"| {who} | {ratios} | {row['mean_ratio']:.4f} | {spreads} | {distances} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
