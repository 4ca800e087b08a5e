"""``sciffusion inspect``: what an ensemble store holds, or what a model is."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.errors import SciffusionError

if TYPE_CHECKING:
    from sciffusion.fields.ensemble import Status

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "say what an ensemble store holds and lacks, or what a run or model folder is"
EXAMPLE = "sciffusion inspect ens.zarr --verify"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", help="ensemble (Zarr or NetCDF), run folder or model folder")
    parser.add_argument("--verify", action="store_true", help="compare every chunk with its checksum")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print. Returns 1 when --verify finds damage."""
    from sciffusion.fields.ensemble import is_ensemble_store

    path = Path(args.path)
    if is_ensemble_store(path):
        return _store(path, args)
    if (path / "model.json").is_file() or (path / "emulator" / "model.json").is_file():
        return _model(path, args)
    if path.exists() and path.suffix in {".nc", ".nc4", ".netcdf", ".zarr"}:
        return _plain(path)
    raise SciffusionError(
        f"{path}: {'not an ensemble, run or model' if path.exists() else 'no such file or folder'}",
        "give a store that generate wrote, or a folder that train wrote",
    )


def _store(path: Path, args: argparse.Namespace) -> int:
    from sciffusion.fields.ensemble import EnsembleStore

    store = EnsembleStore(path)
    status = store.status()
    faults = store.verify() if args.verify else []
    if args.json:
        entry = {
            "members": status.members,
            "case_dims": status.case_dims,
            "complete": int(status.complete.sum()),
            "missing": status.missing,
            "identity": status.identity,
            "executions": status.executions,
            "faults": [vars(fault) for fault in faults],
        }
        print(json.dumps(entry, indent=1))
        return 1 if faults else 0
    print("\n".join([f"{path}: ensemble store", *_status_lines(status)]))
    for fault in faults:
        print(f"DAMAGED case {fault.case}, member {fault.member}: {fault.what}")
    if faults:
        print("run the same generate command again: it makes damaged items anew")
    elif args.verify:
        print(f"verified: all {int(status.complete.sum())} complete items agree with their checksums")
    return 1 if faults else 0


def _status_lines(status: "Status") -> list[str]:
    complete = status.complete
    cases = " x ".join(f"{size} {dim}" for dim, size in status.case_dims.items()) or "1 case"
    lines = [
        f"members: {_ranges(status.members)} ({len(status.members)})",
        f"cases: {cases}",
        f"complete: {int(complete.sum())} of {complete.size} items; {int(complete.all(axis=1).sum())} whole members",
    ]
    if status.missing:
        rows = [
            f"  member {member}: {int((~row).sum())} of {row.size} cases missing"
            for member, row in zip(status.members, complete, strict=True)
            if not row.all()
        ]
        lines += ["missing:", *rows[:10], *([f"  and {len(rows) - 10} members more"] if len(rows) > 10 else [])]
    lines += ["made with:", *_settings(status.identity, "  ")]
    others = [entry for entry in status.executions if entry != status.identity["execution"]]
    for entry in others:
        lines += ["members were added by another execution:", *_settings(entry, "  ")]
    return lines


def _settings(entry: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in entry.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_settings(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines


def _ranges(numbers: list[int]) -> str:
    """``0-3, 7`` for [0, 1, 2, 3, 7]."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _model(path: Path, args: argparse.Namespace) -> int:
    from sciffusion.emulator import load

    emulator = load(path)
    card = {name: value for name, value in emulator.card.items() if name != "experiment"}
    if args.json:
        print(json.dumps({"card": card, "identity": emulator.identity()}, indent=1))
        return 0
    lines = [f"{path}: emulator", repr(emulator)]
    for stage in emulator.stages:
        count = sum(parameter.numel() for parameter in stage.parameters())
        conditions = ", ".join(stage.conditioners) or "nothing"
        lines.append(f"stage {stage.name} ({stage.kind}): {count:,} parameters, conditioned on {conditions}")
    lines += _settings({name: _short(value) for name, value in card.items()}, "")
    print("\n".join([*lines, *_settings(emulator.identity(), "")]))
    return 0


def _short(value: Any) -> Any:
    """A long list as its ends and its length."""
    if isinstance(value, list) and len(value) > 4:
        return f"{value[0]} ... {value[-1]} ({len(value)})"
    return value


def _plain(path: Path) -> int:
    from sciffusion.fields.ensemble import open_ensemble

    print(open_ensemble(path))
    return 0
