"""Rows in the making side by side: each in a process of its own, some on every GPU, none that would not end in time."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from families_experiment import Row
from families_table import line

__all__ = ["Crew", "note_failure", "places"]

BEFORE = 45.0  # seconds of a row before its training: imports, data, compilation
GRACE = 5  # seconds to end in after a signal
DEVICES = "CUDA_VISIBLE_DEVICES"
Place = str | None


def places(device: str | None) -> list[Place]:
    """The GPUs to work on, as ``CUDA_VISIBLE_DEVICES`` names one; [None] where there is none to choose."""
    if device == "cpu" or not torch.cuda.is_available():
        return [None]
    named = os.environ.get(DEVICES)
    return list(named.split(",")) if named else [str(number) for number in range(torch.cuda.device_count())]


def note_failure(path: Path, row: Row, why: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"problem": row.problem, "recipe": row.recipe, "seed": row.seed, "why": why}
    path.write_text(json.dumps(entry | {"date": datetime.now(UTC).date().isoformat()}, indent=1))


class Crew:
    """``rows`` in their order, ``args.jobs`` at a time on each of ``places``, none beyond ``args.until`` of ``clock``.

    ``clock`` gives the seconds since the command began.
    """

    def __init__(
        self, rows: Sequence[Row], args: argparse.Namespace, places: Sequence[Place], clock: Callable[[], float]
    ) -> None:
        self.waiting, self.args, self.places, self.clock = list(rows), args, places, clock
        self.running: dict[Row, tuple[subprocess.Popen, Place]] = {}

    def work(self) -> None:
        while (self.waiting or self.running) and self.clock() < self.args.until:
            begun = [self._begin(place) for place in self.places]
            self._collect()
            if not self.running and not any(begun):
                break
            time.sleep(0.2)
        for row in self.waiting:
            print(f"{row.name}: not begun, the time is over", flush=True)
        self._end()

    def _begin(self, place: Place) -> bool:
        """Start a row where there is room for one, so that places take turns; whether one was."""
        row = self.next(place) if len(self._on(place)) < self.args.jobs else None
        if row is not None:
            self.waiting.remove(row)
            self.running[row] = self._start(row, place), place
        return row is not None

    def _on(self, place: Place) -> list[Row]:
        return [row for row, (_, where) in self.running.items() if where == place]

    def next(self, place: Place) -> Row | None:
        """The first row whose teacher is trained or will not be, and that would end in time on ``place``."""
        unfinished = {row for row in (*self.waiting, *self.running) if not row.trained(self.args)}
        for row in self.waiting:
            if row.teacher not in unfinished and self.clock() + self._ahead(row, place) <= self.args.until:
                return row
        return None

    def _ahead(self, row: Row, place: Place) -> float:
        """Seconds until ``row`` would end: what is before it on the device, or its own beginning, and its own work.

        If another command goes on, until it would be trained.
        """
        if self.args.toy:
            return BEFORE
        others = [other for other in self._on(place) if not other.trained(self.args)]
        queue = sum(60 * other.minutes(self.args) + other.seconds_after(self.args) / 2 for other in others)
        training = 0.0 if row.trained(self.args) else 60 * row.minutes(self.args)
        after = 0.0 if self.args.continued else row.seconds_after(self.args)
        return max(BEFORE, queue) + training + after

    def _start(self, row: Row, place: Place) -> subprocess.Popen:
        log = self.args.out / "logs" / f"{row.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        own = ["--rows", f"{row.problem}/{row.recipe}/{row.seed}", "--jobs", "1", "--until", "inf"]
        print(f"{self.clock():.0f} s: {row.name} begins{'' if place is None else f' on GPU {place}'}", flush=True)
        script = str(Path(__file__).with_name("families.py"))
        with log.open("w") as stream:
            return subprocess.Popen(
                [sys.executable, "-u", script, *sys.argv[1:], *own],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ if place is None else os.environ | {DEVICES: place},
            )

    def _collect(self) -> None:
        for row, (process, _) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[row]
            path = self.args.out / f"{row.name}.json"
            what = line([json.loads(path.read_text())]) if path.is_file() else "failed, see its log"
            print(f"{self.clock():.0f} s: {row.name}: {what}", flush=True)

    def _end(self) -> None:
        """End what still runs."""
        for process, _ in self.running.values():
            process.terminate()
        for row, (process, _) in self.running.items():
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            if not (self.args.out / f"{row.name}.json").is_file():
                note_failure(self.args.out / "failed" / f"{row.name}.json", row, "the time was over")
                print(f"{row.name}: ended, the time is over", flush=True)
