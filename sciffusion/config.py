"""Typed settings of an experiment: what the YAML, the command line and Python share.

One experiment = data (a target, conditions, a split), a row of stages, and how to train them. Nothing here imports
torch or xarray; a wrong entry is reported with its place in the file and the mend.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sciffusion.errors import SciffusionError

__all__ = [
    "Calendar",
    "CoarseField",
    "Condition",
    "DenoiserStage",
    "Experiment",
    "NoiseSettings",
    "Position",
    "Sampler",
    "Scalar",
    "Source",
    "Split",
    "StaticField",
    "Target",
    "TrainSettings",
    "UNetSettings",
    "Variable",
    "json_schema",
    "load_experiment",
]

Label = str | int | float
TransformName = Literal["standardise", "log1p", "sqrt", "bounded"]
Align = Literal["exact", "previous", "interpolate"]
Interpolation = Literal["bilinear", "bicubic", "conservative"]


class Settings(BaseModel):
    """Base of all settings: unknown entries are errors, values do not change after they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Settings):
    """Where data come from: NetCDF or Zarr paths (globs allowed; relative to the YAML), read as one dataset."""

    paths: list[str] = Field(min_length=1, description="files, Zarr stores or globs, combined along their coordinates")
    rename: dict[str, str] = Field(default={}, description="name in the file -> name used here")
    select: dict[str, Label | list[Label]] = Field(default={}, description="dim -> label, or [first, last] inclusive")
    combine: str | None = Field(default=None, description="dim along which files without coordinates are concatenated")


class Variable(Settings):
    """How one target variable is represented: its transform and its parity."""

    transform: TransformName = Field(default="standardise", description="applied before the residual is taken")
    scale: float | None = Field(default=None, description="scale of log1p and sqrt, in the variable's units")
    bounds: tuple[float, float] | None = Field(default=None, description="limits of a bounded variable")
    units: str | None = Field(default=None, description="units to convert to when the file's differ")
    odd_along: list[str] = Field(
        default=[], description="grid dims whose mirroring changes the sign (v along latitude)"
    )


class Target(Settings):
    """The fine field to learn."""

    source: Source
    variables: dict[str, Variable] = Field(min_length=1)
    dims: list[str] = Field(min_length=1, max_length=3, description="grid dims, slowest first")
    channel_dims: list[str] = Field(default=[], description="dims stacked into channels, such as level")
    geometry: Literal["plane", "sphere"] = Field(default="plane", description="sphere: a latitude-longitude grid")
    periodic: list[str] = Field(default=[], description="grid dims that wrap around")
    spacing: dict[str, float] = Field(default={}, description="grid spacing of dims that have no coordinate")


class CoarseField(Settings):
    """A coarse field, interpolated to the fine grid; without a source, the target's own conservative coarsening."""

    kind: Literal["coarse"] = "coarse"
    source: Source | None = None
    variables: list[str] = Field(min_length=1)
    factor: float | dict[str, float] | None = Field(default=None, description="coarse over fine spacing")
    interpolation: Interpolation = "bicubic"
    align: Align = "exact"


class StaticField(Settings):
    """Fields without time (orography, land fraction) on the target's grid or regridded to it; kept in the emulator."""

    kind: Literal["static"] = "static"
    source: Source
    variables: list[str] = Field(min_length=1)


class Scalar(Settings):
    """Scalars per case (forcings, indices), standardised and fed as a vector."""

    kind: Literal["scalar"] = "scalar"
    source: Source
    variables: list[str] = Field(min_length=1)
    align: Align = "exact"


class Calendar(Settings):
    """Sine and cosine of clocks computed from each case's time coordinate."""

    kind: Literal["calendar"] = "calendar"
    dim: str = "time"
    features: list[Literal["time_of_day", "day_of_year", "local_solar_time"]] = Field(min_length=1)


class Position(Settings):
    """Where each cell is: sine of latitude, or Fourier features of the coordinates."""

    kind: Literal["position"] = "position"
    features: list[Literal["latitude", "fourier"]] = Field(min_length=1)
    frequencies: int = Field(default=4, ge=1, description="Fourier frequencies per axis")


Condition = Annotated[CoarseField | StaticField | Scalar | Calendar | Position, Field(discriminator="kind")]


class Split(Settings):
    """Which cases train, validate and test, as [first, last] label ranges (inclusive) along one case dim."""

    dim: str | None = Field(default="time", description="None: a single case serves for everything")
    train: list[tuple[Label, Label]] = Field(min_length=1)
    validation: list[tuple[Label, Label]] = []
    test: list[tuple[Label, Label]] = []


class UNetSettings(Settings):
    """A UNet with boundary-aware convolutions; cost and size follow channels x multipliers and blocks."""

    kind: Literal["unet"] = "unet"
    channels: int = Field(default=64, ge=4, description="width of the outermost level")
    multipliers: list[int] = Field(default=[1, 2, 4], min_length=1, description="width of each level over channels")
    blocks: int = Field(default=2, ge=1, description="residual blocks per level and side")
    attention: list[int] = Field(default=[], description="levels (0 is outermost) with self-attention")
    patch: int = Field(default=1, ge=1, description="side of the patches folded into channels by the stem")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    embedding: int = Field(default=128, ge=8, description="width of the noise-level and vector embedding")


class NoiseSettings(Settings):
    """Noise levels, in units of the normalised target's sd; ``fit`` measures sigma_max on the training data."""

    sigma_min: float = Field(default=0.002, gt=0)
    sigma_max: float | Literal["fit"] = "fit"
    distribution: Literal["lognormal", "loguniform"] = "lognormal"
    p_mean: float = -1.2
    p_std: float = Field(default=1.2, gt=0)


class Sampler(Settings):
    """Solver, network calls and noise grid at sampling time; a None takes the emulator's own value."""

    solver: str = "dpmpp-2m"
    steps: int = Field(default=18, ge=1)
    rho: float = Field(default=7.0, gt=0)
    sigma_min: float | None = None
    sigma_max: float | None = None
    churn: float = Field(default=0.0, ge=0, description="S_churn of the stochastic Heun solver")
    s_noise: float = Field(default=1.0, gt=0)


class DenoiserStage(Settings):
    """A conditional diffusion model of the target, as the residual to a baseline."""

    name: str = "denoiser"
    kind: Literal["denoiser"] = "denoiser"
    network: UNetSettings = UNetSettings()
    parameterization: Literal["edm", "epsilon", "velocity", "flow"] = "edm"
    inputs: list[str] | None = Field(default=None, description="names of the conditions used; None: all")
    baseline: str | None = Field(default=None, description="coarse condition whose interpolation is subtracted")
    shrinkage: float | Literal["fit"] = Field(
        default="fit", description="of the mean residual per cell: 0 none, 1 full"
    )
    condition_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of samples trained unconditionally")
    noise: NoiseSettings = NoiseSettings()
    sampler: Sampler = Sampler()
    constraint: str | None = Field(default=None, description="coarse condition that every member must reproduce")


Stage = DenoiserStage


class Augment(Settings):
    """Symmetries of the dynamics, applied to all fields of a sample alike."""

    roll: list[str] = Field(default=[], description="periodic dims rolled by a random shift")
    mirror: list[str] = Field(default=[], description="dims mirrored at random (see Variable.odd_along)")


class TrainSettings(Settings):
    """How the stages are trained."""

    steps: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=16, ge=1, description="over all devices")
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=200, ge=0, description="steps of linear warm-up; cosine decay follows")
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema_halflife: float = Field(default=0.05, gt=0, description="EMA half-life as a share of the steps done")
    crop: dict[str, int] = Field(default={}, description="random training window, in cells per grid dim")
    augment: Augment = Augment()
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    cache: Literal["auto", "memory", "none"] = "auto"
    statistics_cases: int = Field(default=256, ge=1, description="cases that means and spreads are measured on")
    validate_every: int = Field(default=500, ge=1, description="steps between validations and checkpoints")
    validation_members: int = Field(default=4, ge=0, description="members of the validation CRPS; 0 skips it")
    validation_cases: int = Field(default=8, ge=1)
    workers: int = Field(default=0, ge=0)
    devices: int | Literal["auto"] = "auto"
    nodes: int = Field(default=1, ge=1)
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0


class Experiment(Settings):
    """Everything that defines a training run."""

    version: Literal[1] = Field(default=1, description="version of this schema")
    recipe: str = "edm"
    title: str = ""
    licence: str = Field(default="", description="licence of the trained weights, copied into the model card")
    output: str = Field(default="run", description="run directory")
    target: Target
    conditions: dict[str, Condition] = Field(min_length=1)
    split: Split
    stages: list[Stage] = Field(default=[DenoiserStage()], min_length=1)
    train: TrainSettings = TrainSettings()


def json_schema() -> dict[str, Any]:
    """JSON schema of the experiment YAML, for editors."""
    return Experiment.model_json_schema()


def load_experiment(source: str | Path | Mapping[str, Any] | Experiment, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from YAML (or a mapping), apply ``a.b=value`` overrides, validate it.

    Relative data and output paths are resolved against the YAML's folder. Raises SciffusionError naming the line.
    """
    if isinstance(source, Experiment):
        if not overrides:
            return source
        source = source.model_dump(mode="json")
    text, base = "", None
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise SciffusionError(
                f"{path}: no such file", "give the path of an experiment YAML (sciffusion init writes one)"
            )
        text, base = path.read_text(), path.parent.resolve()
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SciffusionError(f"{path}: not valid YAML: {error}", "mend the YAML at that line") from None
    else:
        settings = json.loads(json.dumps(dict(source)))
    if not isinstance(settings, dict):
        raise SciffusionError("the experiment is not a mapping", "start from the YAML that `sciffusion init` writes")
    for override in overrides:
        _override(settings, override)
    try:
        experiment = Experiment.model_validate(settings)
    except ValidationError as error:
        raise SciffusionError(*_explain(error, settings, text, source)) from None
    return experiment if base is None else _resolve(experiment, base)


def _override(settings: dict[str, Any], override: str) -> None:
    """Apply one ``a.b.0.c=value``; the value is read as YAML."""
    key, separator, value = override.partition("=")
    if not separator:
        raise SciffusionError(f"--set {override}: no '='", "write --set train.steps=100")
    *path, last = key.strip().split(".")
    node: Any = settings
    for part in path:
        if isinstance(node, list):
            node = node[_position(node, part, override)]
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, (dict, list)):
            raise SciffusionError(f"--set {override}: {part!r} is not a section", "check the path in the YAML")
    if isinstance(node, list):
        node[_position(node, last, override)] = yaml.safe_load(value)
    else:
        node[last] = yaml.safe_load(value)


def _position(node: list[Any], part: str, override: str) -> int:
    """Index of a list entry, by number or by the entry's ``name``."""
    for index, entry in enumerate(node):
        if part == str(index) or (isinstance(entry, dict) and entry.get("name") == part):
            return index
    raise SciffusionError(f"--set {override}: no entry {part!r} in the list", "use its index or its name")


def _explain(error: ValidationError, settings: Any, text: str, source: Any) -> tuple[str, str]:
    """The first fault as (what, mend): where it stands, what is wrong, the nearest known name."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if not _is_tag(part)]
    line = _line(text, first["loc"])
    where = f"{source}{f', line {line}' if line else ''}: " if text else ""
    message = f"{where}{'.'.join(place)}: {first['msg']}"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_names(), n=1)
        return f"{where}{'.'.join(place)}: unknown setting", f"did you mean {near[0]!r}?" if near else "remove it"
    return message, "see `sciffusion init --schema` for every setting with its type and default"


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and part in {"coarse", "static", "scalar", "calendar", "position", "unet", "denoiser"}


def _known_names() -> list[str]:
    schema = json_schema()
    tables = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for table in tables for name in table.get("properties", {})})


def _line(text: str, location: Sequence[int | str]) -> int | None:
    """Line of the YAML node nearest to a pydantic location."""
    if not text:
        return None
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    node, line = value, key.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _resolve(experiment: Experiment, base: Path) -> Experiment:
    """Make relative paths absolute against the YAML's folder."""

    def absolute(path: str) -> str:
        return path if "://" in path or Path(path).is_absolute() else str(base / path)

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: [absolute(path) for path in entry] if key == "paths" else walk(entry)
                for key, entry in value.items()
            }
        return [walk(entry) for entry in value] if isinstance(value, list) else value

    settings = walk(experiment.model_dump(mode="json"))
    settings["output"] = absolute(experiment.output)
    return Experiment.model_validate(settings)
