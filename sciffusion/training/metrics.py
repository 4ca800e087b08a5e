"""Losses of a stage in training as CSV. A resumed training goes on in its file; Lightning's logger deletes it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from sciffusion.fields.output import write_text

__all__ = ["LOGGED", "MetricsFile"]

LOGGED = 10  # steps from one loss that is written and shown to the next: to read one waits for the device


class MetricsFile(Logger):
    """The file ``path``, with its rows up to step ``resumed``: later ones are of steps that are taken once more.

    The column ``step`` counts the steps taken, as log lines do. A new name is one more column.
    """

    def __init__(self, path: Path, resumed: int) -> None:
        super().__init__()
        self.path = path
        self._resumed = resumed
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """What it holds."""
        return "metrics"

    @property
    def version(self) -> str:
        """The stage."""
        return self.path.parent.name

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in the run's experiment.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        row = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        row["step"] = (step or 0) + 1
        if not self._columns:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            before = _rows(self.path, self._resumed)
            self._rewrite(before, list(before[0]) if before else ["step"])
        if new := sorted(row.keys() - set(self._columns)):
            self._rewrite(_rows(self.path), [*self._columns, *new])
        with self.path.open("a", newline="") as file:
            file.write(_text([row], self._columns))

    def _rewrite(self, rows: Sequence[Mapping[str, Any]], columns: list[str]) -> None:
        """Write the whole file anew."""
        self._columns = columns
        write_text(self.path, _text([dict(zip(columns, columns, strict=True)), *rows], columns))


def _rows(path: Path, last: int | None = None) -> list[dict[str, str]]:
    """Rows of the file up to step ``last``, without a line that a kill has cut."""
    if not path.is_file():
        return []
    whole = path.read_text().rpartition("\n")[0]
    rows = csv.DictReader(io.StringIO(whole))
    return [row for row in rows if last is None or int(row["step"]) <= last]


def _text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
