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

    ``maps`` holds fields of one case and maps of mean scores; ``provenance`` the ensemble's own attributes; ``others``
    the same for ensembles judged side by side with this one, by name; ``data`` fingerprints of the data, by name.
    """

    scores: xr.Dataset
    in_sample: xr.Dataset | None = None
    maps: xr.Dataset = field(default_factory=xr.Dataset)
    provenance: dict[str, Any] = field(default_factory=dict)
    others: dict[str, "Evaluation"] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the ensemble that is judged."""
        return str(self.scores["system"].values[0])

    @property
    def side_by_side(self) -> dict[str, "Evaluation"]:
        """All evaluations, the first one first, by the names of their ensembles."""
        return {self.name: self, **self.others}

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """What is right and wrong with the ensemble, in sentences, by variable."""
        from sciffusion.evaluation.verdict import verdicts

        return verdicts(self.scores)

    @property
    def faults(self) -> dict[str, list[str]]:
        """Short names of the faults that the verdicts blame, by variable; empty for an ensemble that is cleared."""
        from sciffusion.evaluation.verdict import faults

        return faults(self.scores)

    def to_netcdf(self, path: str | Path) -> None:
        """Write all numbers; scores on training cases go into a group ``in_sample``, others into ``ensembles/NAME``."""
        target = Path(path)
        self.scores.to_netcdf(target, mode="w", engine="netcdf4")
        for name, one in self.side_by_side.items():
            group = "" if one is self else f"ensembles/{name.replace('/', '_')}/"
            if group:
                one.scores.to_netcdf(target, mode="a", group=group.rstrip("/"), engine="netcdf4")
            if one.in_sample is not None:
                one.in_sample.to_netcdf(target, mode="a", group=f"{group}in_sample", engine="netcdf4")

    def to_json(self, path: str | Path) -> None:
        """Write all numbers and the verdicts as JSON (NaN becomes null), other ensembles under ``ensembles``."""
        entries = self._entries()
        if self.others:
            entries["ensembles"] = {name: one._entries() for name, one in self.others.items()}
        if self.data:
            entries["data"] = self.data
        Path(path).write_text(json.dumps(entries, indent=1, allow_nan=False))

    def _entries(self) -> dict[str, Any]:
        entries: dict[str, Any] = {"scores": _plain(self.scores.to_dict()), "verdicts": self.verdicts}
        if self.in_sample is not None:
            entries["in_sample"] = _plain(self.in_sample.to_dict())
        return entries

    def to_html(self, path: str | Path) -> None:
        """Write the report: one self-contained file."""
        from sciffusion.evaluation.report import render

        Path(path).write_text(render(self), encoding="utf-8")

    def to_figures(self, folder: str | Path) -> None:
        """Write every figure of the report as SVG and PNG."""
        from sciffusion.evaluation.report import save_figures

        save_figures(self, folder)

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
