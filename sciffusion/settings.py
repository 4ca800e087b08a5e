"""The sections of an experiment about data and training, as pydantic models.

``sciffusion.stage_settings`` has those of the models; ``sciffusion.config`` puts them together and reads the YAML.

Every field has a description, which is its reference: in the JSON schema, in editors, in the documentation.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from sciffusion import registry

__all__ = [
    "Augment",
    "Calendar",
    "CoarseField",
    "CoarseTokens",
    "Condition",
    "CustomCondition",
    "Position",
    "Previous",
    "Scalar",
    "Settings",
    "Source",
    "Split",
    "StaticField",
    "Target",
    "Text",
    "TrainSettings",
    "Variable",
]

Label = str | int | float
TransformName = Literal["standardise", "log1p", "censored", "sqrt", "bounded"]
Align = Literal["exact", "previous", "interpolate"]
Interpolation = Literal["bilinear", "bicubic", "conservative"]
ALIGN = "how a case finds its entry in time: the same label, the last one before, or linearly between two"


class Settings(BaseModel):
    """Base of all settings: unknown entries are errors, values do not change after they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Settings):
    """Where data come from: NetCDF or Zarr paths (globs allowed; relative to the YAML), read as one dataset."""

    paths: list[str] = Field(min_length=1, description="files, Zarr stores or globs, combined along their coordinates")
    rename: dict[str, str] = Field(default={}, description="name in the file -> name used here")
    select: dict[str, Label | list[Label]] = Field(default={}, description="dim -> label, or [first, last] inclusive")
    combine: str | None = Field(default=None, description="dim along which files that nothing tells apart are stacked")


class Variable(Settings):
    """How one target variable is represented: its transform and its parity."""

    transform: TransformName = Field(default="standardise", description="applied before the residual is taken")
    scale: float | None = Field(
        default=None, gt=0, description="scale of log1p, censored and sqrt, in the variable's units"
    )
    threshold: float | None = Field(
        default=None, gt=0, description="of censored: smaller values count as 0; null: 1 % of the mean where positive"
    )
    bounds: tuple[float, float] | None = Field(default=None, description="limits of a bounded variable")
    units: str | None = Field(default=None, description="units to convert to when the file's differ")
    odd_along: list[str] = Field(
        default=[], description="grid dims whose mirroring changes the sign (v along latitude)"
    )


class Target(Settings):
    """The fine field to learn."""

    source: Source = Field(description="files of the fine field")
    variables: dict[str, Variable] = Field(min_length=1, description="variables to generate; {} for the defaults")
    dims: list[str] = Field(min_length=1, max_length=3, description="grid dims, slowest first")
    channel_dims: list[str] = Field(default=[], description="dims stacked into channels, such as level")
    geometry: Literal["plane", "sphere"] = Field(default="plane", description="sphere: a latitude-longitude grid")
    periodic: list[str] = Field(default=[], description="grid dims that wrap around")
    spacing: dict[str, float] = Field(default={}, description="grid spacing of dims that have no coordinate")


class CoarseField(Settings):
    """A coarse field, interpolated to the fine grid; without a source, the target's own conservative coarsening."""

    kind: Literal["coarse"] = "coarse"
    source: Source | None = Field(default=None, description="files of the coarse field; null: coarsen the target")
    variables: list[str] = Field(min_length=1, description="variables of the coarse field that are fed in")
    factor: float | dict[str, float] | None = Field(
        default=None, description="coarse over fine spacing, for all grid dims or each; needed without a source"
    )
    interpolation: Interpolation = Field(default="bicubic", description="how it is brought to the fine grid")
    align: Align = Field(default="exact", description=ALIGN)


class CoarseTokens(CoarseField):
    """A coarse field as a sequence of tokens, one per patch of the fine grid, for cross-attention."""

    kind: Literal["coarse-tokens"] = "coarse-tokens"  # type: ignore[assignment]
    patch: int = Field(default=8, ge=1, description="cells of the fine grid a side that make a token")
    width: int = Field(default=128, ge=8, description="features of a token; the same for all conditions with tokens")


class Text(Settings):
    """A text per case through a frozen sentence encoder (the extra sciffusion[text]), as tokens for cross-attention."""

    kind: Literal["text"] = "text"
    source: Source | None = Field(
        default=None, description="files with a text per case; null: texts are made from the target's regimes"
    )
    variables: list[str] = Field(
        default=["prompt"], min_length=1, max_length=1, description="variable that holds the texts"
    )
    regimes: list[str] | None = Field(
        default=None, description="target variables whose mean and variability make the texts; null: the first"
    )
    align: Align = Field(default="exact", description=ALIGN)
    tokens: int = Field(default=32, ge=4, description="longest text, in tokens of the encoder")
    width: int = Field(default=128, ge=8, description="features of a token; the same for all conditions with tokens")


class Previous(Settings):
    """Earlier states of the target (or of a source), on the target's grid: what a forecast starts from."""

    kind: Literal["previous"] = "previous"
    source: Source | None = Field(default=None, description="files of the states; null: the target's own")
    variables: list[str] | None = Field(default=None, description="variables of the states; null: the target's")
    dim: str = Field(default="time", description="case dim along which they are earlier")
    lags: list[int] = Field(default=[1], min_length=1, description="how many entries earlier; 1 is the one before")
    noise: float = Field(
        default=0.0,
        ge=0,
        description="training adds noise of uniform level up to this many sds, told to the network; members have none",
    )


class CustomCondition(Settings):
    """A condition of a class of one's own, which an installed package offers in the group sciffusion.conditioners."""

    kind: str = Field(
        description="name of the class's entry point",
        json_schema_extra={"not": {"enum": list(registry.built_in("conditioners"))}},
    )
    source: Source | None = Field(default=None, description="files of the condition; null: the target's own data")
    variables: list[str] | None = Field(default=None, description="variables that are read; null: all")
    align: Align = Field(default="exact", description=ALIGN)
    options: dict[str, Any] = Field(default={}, description="whatever the class needs to know")


class StaticField(Settings):
    """Fields without time (orography, land fraction) on the target's grid or regridded to it; kept in the emulator."""

    kind: Literal["static"] = "static"
    source: Source = Field(description="files of the static fields")
    variables: list[str] = Field(min_length=1, description="static fields that are fed in")


class Scalar(Settings):
    """Scalars per case (forcings, indices), standardised and fed as a vector."""

    kind: Literal["scalar"] = "scalar"
    source: Source = Field(description="files of the scalars")
    variables: list[str] = Field(min_length=1, description="scalars that are fed in")
    align: Align = Field(default="exact", description=ALIGN)


class Calendar(Settings):
    """Sine and cosine of clocks computed from each case's time coordinate."""

    kind: Literal["calendar"] = "calendar"
    dim: str = Field(default="time", description="case dim with the dates")
    features: list[Literal["time_of_day", "day_of_year", "local_solar_time"]] = Field(
        min_length=1, description="clocks; local_solar_time is a field that turns with the longitudes"
    )


class Position(Settings):
    """Where each cell is: sine of latitude, or Fourier features of the coordinates."""

    kind: Literal["position"] = "position"
    features: list[Literal["latitude", "fourier"]] = Field(min_length=1, description="sine of latitude, or sinusoids")
    frequencies: int = Field(default=4, ge=1, description="Fourier frequencies per axis")


def _condition_kind(value: Any) -> str:
    """The kind of a condition's settings; "custom" for one that an installed package offers."""
    kind = str(value.get("kind", "") if isinstance(value, dict) else getattr(value, "kind", ""))
    return "custom" if kind in registry.installed("conditioners") else kind


Condition = Annotated[
    Annotated[CoarseField, Tag("coarse")]
    | Annotated[CoarseTokens, Tag("coarse-tokens")]
    | Annotated[StaticField, Tag("static")]
    | Annotated[Scalar, Tag("scalar")]
    | Annotated[Calendar, Tag("calendar")]
    | Annotated[Position, Tag("position")]
    | Annotated[Previous, Tag("previous")]
    | Annotated[Text, Tag("text")]
    | Annotated[CustomCondition, Tag("custom")],
    Discriminator(_condition_kind),
]


class Split(Settings):
    """Which cases train, validate and test, as [first, last] label ranges (inclusive) along one case dim."""

    dim: str | None = Field(default="time", description="case dim that is split; null: one case serves for everything")
    train: list[tuple[Label, Label]] = Field(min_length=1, description="cases the weights are fitted to")
    validation: list[tuple[Label, Label]] = Field(default=[], description="cases that choose the best checkpoint")
    test: list[tuple[Label, Label]] = Field(default=[], description="cases held out; `generate` makes these by default")


class Augment(Settings):
    """Symmetries of the dynamics, applied to all fields of a sample alike."""

    roll: list[str] = Field(default=[], description="periodic dims rolled by a random shift")
    mirror: list[str] = Field(default=[], description="dims mirrored at random (see Variable.odd_along)")


class TrainSettings(Settings):
    """How the stages are trained."""

    steps: int = Field(default=10_000, ge=1, description="optimiser steps")
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="end a stage after so much time, too, counted from its first step's end; the learning rate falls"
        " with time then; null: after its steps only",
    )
    batch_size: int = Field(default=16, ge=1, description="over all devices")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of Adam")
    warmup: int = Field(default=200, ge=0, description="steps of linear warm-up; cosine decay follows")
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW")
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_halflife: float = Field(default=0.05, gt=0, description="EMA half-life as a share of the steps done")
    crop: dict[str, int] = Field(default={}, description="random training window, in cells per grid dim")
    augment: Augment = Field(default=Augment(), description="random rolls and mirrors")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="auto", description="of the network in training; auto: bf16-mixed on GPUs that have units for it"
    )
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="torch.compile the network (not a regression's) and its derivative; auto: on GPUs, if there are"
        " 2000 steps or more and 5 minutes at least, where they are limited",
    )
    cache: Literal["auto", "memory", "none"] = Field(
        default="auto", description="keep prepared samples in memory; auto: when they fit"
    )
    statistics_cases: int = Field(default=256, ge=1, description="cases that means and spreads are measured on")
    validate_every: int = Field(default=500, ge=1, description="steps between validations and checkpoints")
    validation_members: int = Field(default=4, ge=0, description="members of the validation CRPS; 0 skips it")
    keep: Literal["best", "last"] = Field(default="best", description="average of the best validation, or the last")
    validation_cases: int = Field(default=8, ge=1, description="cases of a validation, spread over the split")
    workers: int = Field(default=0, ge=0, description="processes that read data; 0: the training process itself")
    devices: int | Literal["auto"] = Field(default="auto", description="devices per node")
    nodes: int = Field(default=1, ge=1, description="nodes")
    accelerator: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="kind of device")
    seed: int = Field(default=0, description="of weights, data order and noise")
