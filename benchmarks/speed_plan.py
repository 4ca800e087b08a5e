"""Which rows fit into the time: the seconds each is expected to take, their division among processes, the files' merge.

A file of results is {machine: {"rows": {name: row}}}; that of part i of n lies beside it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from speed_rows import Row

from sciffusion.fields.output import write_text

COMPILE = {"physicsnemo-songunet": 60.0, "diffusers-unet2d": 48.0}  # seconds of one of eight at once; others: 30
START, TRAIN_START = 7.0, 25.0  # networks, inputs, code from the cache, garbage; data and Lightning's own
FIELD = 2e-3  # seconds of a field of 256^2 where nothing like it is known
SLOWER = {"bf16": 1.6, "fp8": 2.0, "tiled": 2.2, "eager": 7.0, "loop": 1.6, "lightning": 4.0}
Rows = Mapping[str, dict]


def compile_seconds(row: Row) -> float:
    """Seconds of compiling its code, about; 0 where there is none."""
    longer = 1.6 if row.task == "train" else 1.0
    return longer * COMPILE.get(row.network, 30.0) if row.compiled else 0.0


def expected(row: Row, known: Rows) -> float:
    """Seconds of measuring it once its code is there, from those that it took or from the speed of its network."""
    if "row_s" in known.get(row.name, {}):
        return float(known[row.name]["row_s"])
    like = known.get(Row("call", row.network, 256, 16, "compiled").name, {})
    cells = row.batch * (row.side / 256) ** 2 if row.batch else 64.0
    call = cells / like.get("fields_per_s", 1 / FIELD) * SLOWER.get(row.mode, 1.0)
    if row.task == "train":
        return TRAIN_START + 3.5 * call * (60 if row.side > 64 else 250)
    calls = 36 if row.task == "sample" else 1  # a sample's, and as long again by themselves
    return START + max(2.0, (12 if call < 2 else 6) * calls * call)


def share(rows: Iterable[Row], part: int, parts: int, known: Rows, jobs: int) -> list[Row]:
    """Those of ``rows`` that part ``part`` of ``parts`` measures, in their order.

    What is compared stays together, on one GPU: all modes of one network on one grid and batch, in calls and samples,
    and its ways to be trained. Each group goes to the part with the least to do so far.
    """
    groups: dict[Row, list[Row]] = {}
    for row in rows:
        groups.setdefault(replace(row, task="train" if row.task == "train" else "", mode=""), []).append(row)
    spent, mine = [0.0] * parts, set()
    for group in groups.values():
        chosen = spent.index(min(spent))
        codes = {row.compiled: row for row in group}.values()
        compiling = sum(compile_seconds(row) for row in codes) / max(jobs, 1)
        spent[chosen] += sum(expected(row, known) for row in group) + compiling
        mine |= set(group) if chosen == part else set()
    return [row for row in rows if row in mine]


def read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, known: dict) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known, indent=1))


def part_file(path: Path, part: int, parts: int) -> Path:
    return path.with_suffix(f".part{part}of{parts}.json")


def merge(path: Path) -> int:
    """Move the rows of all part files into ``path``, the newer in place of the older; how many rows there are then.

    An error never takes the place of a measurement. The part files are removed once the whole is on the disk.
    """
    known, parts = read(path), sorted(path.parent.glob(f"{path.stem}.part*of*.json"))
    for part in parts:
        for machine, entry in read(part).items():
            mine = known.setdefault(machine, {"rows": {}})
            for name, row in entry["rows"].items():
                if "error" not in row or "error" in mine["rows"].get(name, {"error": ""}):
                    mine["rows"][name] = row
    save(path, known)
    for part in parts:
        part.unlink()
    return sum(len(entry["rows"]) for entry in known.values())
