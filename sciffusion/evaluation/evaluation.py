"""What an evaluation hands back: numbers as xarray, NetCDF and JSON, a scorecard for the terminal, a report to show."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """``scores`` of the held-out cases (``scores.attrs["sample"]`` says which), and apart from them those IN-SAMPLE.

    ``maps`` holds fields of one case and maps of mean scores; ``provenance`` the ensemble's own attributes.
    """

    scores: xr.Dataset
    in_sample: xr.Dataset | None = None
    maps: xr.Dataset = field(default_factory=xr.Dataset)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """What is right and wrong with the ensemble, in sentences, by variable."""
        from sciffusion.evaluation.verdict import verdicts

        return verdicts(self.scores)

    def to_netcdf(self, path: str | Path) -> None:
        """Write all numbers; scores on training cases go into the group ``in_sample``."""
        target = Path(path)
        self.scores.to_netcdf(target, mode="w", engine="netcdf4")
        if self.in_sample is not None:
            self.in_sample.to_netcdf(target, mode="a", group="in_sample", engine="netcdf4")

    def to_json(self, path: str | Path) -> None:
        """Write all numbers and the verdicts as JSON (NaN becomes null)."""
        entries: dict[str, Any] = {"scores": _plain(self.scores.to_dict()), "verdicts": self.verdicts}
        if self.in_sample is not None:
            entries["in_sample"] = _plain(self.in_sample.to_dict())
        Path(path).write_text(json.dumps(entries, indent=1, allow_nan=False))

    def to_html(self, path: str | Path) -> None:
        """Write the report: one self-contained file."""
        from sciffusion.evaluation.report import render

        Path(path).write_text(render(self), encoding="utf-8")

    def summary(self) -> str:
        """The scorecard, for a terminal."""
        from sciffusion.evaluation.scorecard import scorecard

        return scorecard(self)


def _plain(value: Any) -> Any:
    """JSON without NaN and numpy."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
