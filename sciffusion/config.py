"""Typed settings of an experiment: what the YAML, the command line and Python share.

One experiment = data (a target, conditions, a split), a row of stages, and how to train them. A recipe is laid under
the user's entries. Nothing here imports torch or xarray; a wrong entry is reported with its line and the mend. The
sections are in ``sciffusion.settings`` and ``stage_settings``; ``sciffusion init --schema`` prints them all.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sciffusion import recipes, yamltext
from sciffusion.errors import SciffusionError
from sciffusion.settings import (
    Augment,
    Calendar,
    CoarseField,
    CoarseTokens,
    Condition,
    CustomCondition,
    Interpolation,
    Position,
    Previous,
    Scalar,
    Settings,
    Source,
    Split,
    StaticField,
    Target,
    Text,
    TrainSettings,
    Variable,
)
from sciffusion.stage_settings import (
    AutoencoderStage,
    DenoiserStage,
    DiTSettings,
    FlowMapStage,
    NoiseSettings,
    RegressionStage,
    Sampler,
    Stage,
    StageTrain,
    UNetSettings,
)

__all__ = [
    "Augment",
    "AutoencoderStage",
    "Calendar",
    "CoarseField",
    "CoarseTokens",
    "Condition",
    "CustomCondition",
    "DenoiserStage",
    "DiTSettings",
    "Experiment",
    "FlowMapStage",
    "Interpolation",
    "NoiseSettings",
    "Position",
    "Previous",
    "RegressionStage",
    "Sampler",
    "Scalar",
    "Settings",
    "Source",
    "Split",
    "Stage",
    "StageTrain",
    "StaticField",
    "Target",
    "Text",
    "TrainSettings",
    "UNetSettings",
    "Variable",
    "json_schema",
    "load_experiment",
]


class Fault(ValueError):
    """Two settings that do not fit together: where, what, and the mend."""

    def __init__(self, place: Sequence[int | str], what: str, mend: str) -> None:
        self.place, self.what, self.mend = tuple(place), what, mend
        super().__init__(f"{'.'.join(map(str, place))}: {what} ({mend})")


class Experiment(Settings):
    """Everything that defines a training run."""

    version: Literal[1] = Field(default=1, description="version of this schema")
    recipe: str = Field(default="edm", description="family of defaults laid under these settings")
    title: str = Field(default="", description="one line for the model card")
    licence: str = Field(default="", description="licence of the trained weights, copied into the model card")
    output: str = Field(default="run", description="run directory")
    target: Target = Field(description="the fine field to learn")
    conditions: dict[str, Condition] = Field(min_length=1, description="named inputs")
    split: Split = Field(description="which cases train, validate and test")
    stages: list[Stage] = Field(default=[DenoiserStage()], min_length=1, description="the chain of models, by name")
    train: TrainSettings = Field(default=TrainSettings(), description="how they are trained")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for fault in (*_target_faults(self), *_condition_faults(self), *_stage_faults(self)):
            raise fault
        return self


def _target_faults(experiment: Experiment) -> Iterator[Fault]:
    """Names of dims that are no grid dims; variables without what their transform needs."""
    dims = experiment.target.dims
    train, target = experiment.train, experiment.target
    named: list[tuple[tuple[str, ...], Sequence[str], Sequence[str]]] = [
        (("target", "periodic"), target.periodic, dims),
        (("target", "spacing"), list(target.spacing), dims),
        (("train", "crop"), list(train.crop), dims),
        (("train", "augment", "mirror"), train.augment.mirror, dims),
        (("train", "augment", "roll"), train.augment.roll, target.periodic),
        *((("target", "variables", name, "odd_along"), v.odd_along, dims) for name, v in target.variables.items()),
    ]
    for place, names, known in named:
        for name in names:
            if name not in known:
                kind = "periodic grid dims" if known is target.periodic else "grid dims"
                yield Fault(place, f"{name!r} is none of the {kind}", f"they are {', '.join(known) or '(none)'}")
    for dim in set(dims) & set(target.channel_dims):
        yield Fault(("target", "channel_dims"), f"{dim!r} is also a grid dim", "keep it in one of the two")
    for name, variable in target.variables.items():
        if variable.transform == "bounded" and variable.bounds is None:
            yield Fault(("target", "variables", name), "bounded without bounds", "add bounds: [low, high]")


def _condition_faults(experiment: Experiment) -> Iterator[Fault]:
    """A coarse field of the target's own that lacks a factor, or names other variables."""
    for name, condition in experiment.conditions.items():
        if not isinstance(condition, CoarseField) or condition.source is not None:
            continue
        if condition.factor is None:
            yield Fault(("conditions", name), "neither a source nor a factor", "add factor: 4, or the coarse files")
        for variable in condition.variables:
            if variable not in experiment.target.variables:
                mend = f"the target has {', '.join(experiment.target.variables)}; or add a source"
                yield Fault(("conditions", name, "variables"), f"{variable!r} is no target variable", mend)


def _stage_faults(experiment: Experiment) -> Iterator[Fault]:
    """Stages of one name, and references to conditions and earlier stages that do not exist or are of another kind."""
    coarse = [name for name, condition in experiment.conditions.items() if isinstance(condition, CoarseField)]
    guesses = [*coarse, *(name for name, c in experiment.conditions.items() if isinstance(c, Previous))]
    before: list[str] = []
    coders: list[str] = []
    for stage in experiment.stages:
        if stage.name in before:
            yield Fault(("stages", stage.name, "name"), f"two stages are called {stage.name!r}", "rename one")
        outputs = [f"{name}.output" for name in before]
        constraint, space = getattr(stage, "constraint", None), getattr(stage, "space", None)
        for key, wanted, known, kind in (
            ("inputs", stage.inputs or [], ["*", *experiment.conditions, *outputs], "condition or earlier stage"),
            ("baseline", [stage.baseline] if stage.baseline else [], outputs or guesses, _BASELINE[bool(before)]),
            ("constraint", [constraint] if constraint else [], coarse, "coarse condition"),
            ("space", [space] if space else [], coders, "earlier autoencoder stage"),
        ):
            for name in wanted:
                if name not in known:
                    mend = f"known: {', '.join(known) or '(none)'}"
                    yield Fault(("stages", stage.name, key), f"{name!r} is no {kind}", mend)
        if space and getattr(stage, "coarsen", 1) > 1:
            yield Fault(("stages", stage.name, "coarsen"), "a code is not coarsened", "keep one of space and coarsen")
        before.append(stage.name)
        coders += [stage.name] if isinstance(stage, AutoencoderStage) else []


_BASELINE = {
    False: "coarse condition or previous state",
    True: "output of an earlier stage (the first stage names the coarse condition)",
}


def json_schema() -> dict[str, Any]:
    """JSON schema of the experiment YAML, for editors."""
    schema = Experiment.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["recipe"]["enum"] = sorted(recipes.names())
    stages = schema["properties"]["stages"]["items"]
    stages["anyOf"] = stages.pop("oneOf")  # in a YAML the recipe may name the kind
    stages.pop("discriminator", None)
    return schema


def load_experiment(
    source: str | Path | Mapping[str, Any] | Experiment, overrides: Sequence[str] = (), recipe: str | None = None
) -> Experiment:
    """Read an experiment from YAML (or a mapping), lay its recipe under it, apply ``a.b=value`` overrides, validate it.

    ``recipe`` takes another one than the YAML names. Relative data and output paths are resolved against the YAML's
    folder. Raises SciffusionError naming the line.
    """
    if isinstance(source, Experiment) and not overrides and recipe is None:
        return source
    settings, text, base = _read(source)
    settings = settings if recipe is None else recipes.adopt(recipe, settings)
    settings = recipes.merge(recipes.load(str(settings.get("recipe", "edm"))), settings)
    for override in overrides:
        yamltext.apply_override(settings, override)
    try:
        experiment = Experiment.model_validate(settings)
    except ValidationError as error:
        raise SciffusionError(*_explain(error, settings, text, source)) from None
    return experiment if base is None else _resolve(experiment, base)


def _read(source: str | Path | Mapping[str, Any] | Experiment) -> tuple[dict[str, Any], str, Path | None]:
    """The settings as plain data, their text and the folder that relative paths start from."""
    text, base = "", None
    if isinstance(source, Experiment):
        settings: Any = source.model_dump(mode="json")
    elif isinstance(source, Mapping):
        settings = json.loads(json.dumps(dict(source), default=str))
    else:
        path = Path(source)
        if not path.is_file():
            mend = "give the path of an experiment YAML (sciffusion init writes one)"
            raise SciffusionError(f"{path}: no such file", mend)
        text, base = path.read_text(), path.parent.resolve()
        settings = yamltext.parse(text, path)
    if not isinstance(settings, dict):
        raise SciffusionError("the experiment is not a mapping", "start from the YAML that `sciffusion init` writes")
    return settings, text, base


def _explain(error: ValidationError, settings: Any, text: str, source: Any) -> tuple[str, str]:
    """The first fault as (what, mend): where it stands, what is wrong, the nearest known name."""
    first = error.errors()[0]
    fault = first.get("ctx", {}).get("error")
    place = list(fault.place) if isinstance(fault, Fault) else yamltext.walk(settings, first["loc"])
    line = yamltext.line_of(text, place)
    where = (f"{source}{f', line {line}' if line else ''}: " if text else "") + ".".join(map(str, place))
    if isinstance(fault, Fault):
        return f"{where}: {fault.what}", fault.mend
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown setting", _home(str(place[-1]))
    if first["type"].startswith("union_tag"):
        return (
            f"{where}: its kind is missing or unknown",
            f"write kind: with one of {first['ctx'].get('expected_tags', _KINDS)}",
        )
    if first["type"] == "missing":
        return f"{where}: this setting is missing", "add it; `sciffusion init --schema` describes every setting"
    return f"{where}: {first['msg']}", "see `sciffusion init --schema` for every setting with its type and default"


_KINDS = "'coarse', 'coarse-tokens', 'static', 'scalar', 'calendar', 'position', 'previous', 'text'"


def _home(name: str) -> str:
    """The mend for an unknown setting: the section it belongs to, or the nearest known name."""
    schema = json_schema()
    tables = {"Experiment": schema, **schema.get("$defs", {})}
    known = {key: table for table, entry in tables.items() for key in entry.get("properties", {})}
    if name in known:
        return f"it belongs to {known[name]}, see `sciffusion init --schema`"
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it"


def _resolve(experiment: Experiment, base: Path) -> Experiment:
    """Make relative paths absolute against the YAML's folder."""

    def absolute(path: str) -> str:
        return path if "://" in path else str(base / Path(path).expanduser())

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: located(key, entry) for key, entry in value.items()}
        return [walk(entry) for entry in value] if isinstance(value, list) else value

    def located(key: str, entry: Any) -> Any:
        if key == "paths":
            return [absolute(path) for path in entry]
        return absolute(entry) if key == "teacher" and entry else walk(entry)

    settings = walk(experiment.model_dump(mode="json"))
    settings["output"] = absolute(experiment.output)
    return Experiment.model_validate(settings)
