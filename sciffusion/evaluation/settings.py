"""The settings of an evaluation as YAML: which data, with their fingerprints, and how they were judged.

A report is written with such a file beside it; ``sciffusion evaluate --config`` runs it again, and refuses data whose
fingerprint is another.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from sciffusion import yamltext
from sciffusion.errors import SciffusionError
from sciffusion.settings import Settings, Source

__all__ = ["DataSource", "EvaluationSettings", "fingerprinted", "load_settings", "save_settings", "validated"]


class DataSource(Source):
    """Data of an evaluation, and what they were when it was made."""

    sha256: str = Field(default="", description="fingerprint of the data; other data are refused; empty: any data")


class EvaluationSettings(Settings):
    """Everything that defines an evaluation."""

    version: Literal[1] = Field(default=1, description="version of this schema")
    ensembles: dict[str, DataSource] = Field(min_length=1, description="ensembles to judge, by name")
    reference: DataSource = Field(description="the truth")
    coarse: DataSource | None = Field(default=None, description="the coarse input, to check that members agree with it")
    training: DataSource | None = Field(default=None, description="training data: its cases are scored apart")
    baselines: dict[str, DataSource] = Field(default={}, description="ensembles to compare with, by name")
    variables: list[str] | None = Field(default=None, description="variables to score; default: all of the ensemble")
    dims: list[str] | None = Field(default=None, description="grid dims, where coordinates do not tell")
    periodic: list[str] | None = Field(default=None, description="grid dims that wrap around")
    member: str | None = Field(default=None, description="the ensemble dim, where its name does not tell")
    estimator: Literal["fair", "standard", "almost fair"] = Field(default="fair", description="estimator of the CRPS")
    window: Literal["hann", "dct"] = Field(default="hann", description="for spectra of open domains")
    block: int | None = Field(
        default=None, ge=1, description="consecutive cases that hang together; default: estimated"
    )
    force_indices: bool = Field(
        default=False, description="runs of dry and wet days also of members that are not trajectories"
    )
    partial: bool = Field(default=False, description="accept ensemble stores that are not complete")

    def sources(self) -> Iterator[tuple[str, DataSource]]:
        """Every source by the name under which a reader knows it."""
        yield from self.ensembles.items()
        yield "reference", self.reference
        for name, source in (("coarse", self.coarse), ("training", self.training)):
            if source is not None:
                yield name, source
        yield from ((f"baseline {name}", source) for name, source in self.baselines.items())

    @property
    def hashes(self) -> dict[str, str]:
        """The fingerprints that are known, by the names of ``sources``."""
        return {name: source.sha256 for name, source in self.sources() if source.sha256}


def load_settings(path: str | Path) -> dict[str, Any]:
    """The entries of an evaluation's YAML, with paths resolved against its folder; not yet validated."""
    file = Path(path)
    if not file.is_file():
        raise SciffusionError(f"{path}: no such file", "give the YAML that stands beside a report")
    entries = yamltext.parse(file.read_text(encoding="utf-8"), path)
    if not isinstance(entries, dict):
        raise SciffusionError(f"{path}: not a mapping", "start from the YAML that stands beside a report")
    return dict(_with_paths(entries, lambda entry: os.path.normpath(file.resolve().parent / Path(entry).expanduser())))


def validated(entries: dict[str, Any], where: str) -> EvaluationSettings:
    """Typed settings. Raises SciffusionError naming the first entry that is wrong."""
    try:
        return EvaluationSettings.model_validate(entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        mend = "give it" if first["type"] == "missing" else "see `sciffusion evaluate --help`"
        raise SciffusionError(f"{where}: {place}: {first['msg'].lower()}", mend) from None


def save_settings(settings: EvaluationSettings, path: str | Path) -> None:
    """Write the settings as YAML, with paths relative to its folder."""
    folder = Path(path).resolve().parent
    entries = settings.model_dump(mode="json", exclude_defaults=True)
    relative = _with_paths(entries, lambda entry: os.path.relpath(Path(entry).expanduser(), folder))
    text = "# sciffusion evaluate --config FILE makes this evaluation again\n"
    Path(path).write_text(text + yaml.safe_dump(relative, sort_keys=False, allow_unicode=True), encoding="utf-8")


def fingerprinted(settings: EvaluationSettings, fingerprint: Callable[[list[str]], str]) -> EvaluationSettings:
    """The settings with the fingerprints of the data as they are. Raises SciffusionError where others were expected."""
    found = {name: fingerprint(source.paths) for name, source in settings.sources()}
    for name, source in settings.sources():
        if source.sha256 and source.sha256 != found[name]:
            what = f"{name} ({', '.join(source.paths)}) is not what it was: its SHA-256 is {found[name][:12]}..."
            raise SciffusionError(f"{what}, not {source.sha256[:12]}...", "restore it, or remove its sha256 to go on")
    entries = settings.model_dump()
    for name, entry in _entries(entries):
        entry["sha256"] = found[name]
    return EvaluationSettings.model_validate(entries)


def _entries(entries: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sources within plain entries, under the names of ``EvaluationSettings.sources``."""
    yield from entries["ensembles"].items()
    yield from ((name, entries[name]) for name in ("reference", "coarse", "training") if entries[name])
    yield from ((f"baseline {name}", entry) for name, entry in entries["baselines"].items())


def _with_paths(value: Any, change: Callable[[str], str]) -> Any:
    """``value`` with every entry of every ``paths`` changed; URLs stay."""
    if isinstance(value, dict):
        return {
            key: [path if "://" in path else change(path) for path in entry]
            if key == "paths"
            else _with_paths(entry, change)
            for key, entry in value.items()
        }
    return value
