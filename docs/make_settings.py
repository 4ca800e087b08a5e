"""Write settings.md from the typed settings: ``python docs/make_settings.py``. A test holds the two together."""

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sciffusion import settings, stage_settings
from sciffusion.config import Experiment
from sciffusion.evaluation.settings import DataSource, EvaluationSettings

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Every entry of an experiment YAML, and last those of an evaluation. Unknown entries are errors. `sciffusion init` writes
a YAML that holds only what your data need; a recipe is laid under it, and what neither names has the default below. On
the command line,
`--set train.steps=100` overrides an entry; list entries are reached by index or name
(`--set stages.denoiser.network.channels=32`). `sciffusion init --schema` prints the same as a JSON schema for editors.

This page is made by `docs/make_settings.py`.
"""
SECTIONS: dict[str, list[type[BaseModel]]] = {
    "The experiment": [Experiment],
    "Data": [settings.Source, settings.Target, settings.Variable, settings.Split],
    "Conditions": [
        settings.CoarseField,
        settings.StaticField,
        settings.Scalar,
        settings.Calendar,
        settings.Position,
        settings.Previous,
        settings.CoarseTokens,
        settings.Text,
        settings.CustomCondition,
    ],
    "Training": [settings.TrainSettings, settings.Augment],
    "Stages": [
        stage_settings.DenoiserStage,
        stage_settings.RegressionStage,
        stage_settings.FlowMapStage,
        stage_settings.AutoencoderStage,
        stage_settings.NoiseSettings,
        stage_settings.Sampler,
        stage_settings.Augmentation,
        stage_settings.StageTrain,
    ],
}
NAMED = {settings.Settings, *(model for models in SECTIONS.values() for model in models)}
OTHERS = [getattr(module, name) for module in (settings, stage_settings) for name in module.__all__]
SECTIONS["Networks"] = [model for model in OTHERS if isinstance(model, type) and model not in NAMED]
SECTIONS["An evaluation"] = [EvaluationSettings, DataSource]


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, models in SECTIONS.items():
        parts += [f"## {title}\n", *(section(model) for model in models)]
    return "\n".join(parts)


def section(model: type[BaseModel]) -> str:
    """Heading, description and table of one model."""
    rows = [row(name, field) for name, field in model.model_fields.items()]
    text = " ".join((model.__doc__ or "").split())
    head = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([f"### {model.__name__}\n", f"{text}\n", *head, *rows, ""])


def row(name: str, field: FieldInfo) -> str:
    """One line of the table; a pipe within a cell is escaped."""
    cells = [f"`{name}`", kind_of(field.annotation), default_of(field), field.description or fixed(field)]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def kind_of(annotation: Any) -> str:
    """A type in words; other sections by link."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {kind_of(inner[0])}"
    if origin is dict:
        return f"mapping of {kind_of(inner[1])}"
    if origin is tuple:
        return f"[{', '.join(kind_of(one) for one in inner)}]"
    if origin is not None and inner and not isinstance(annotation, type):
        parts = inner[:1] if hasattr(annotation, "__metadata__") else inner
        return " or ".join(kind_of(part) for part in parts)
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def default_of(field: FieldInfo) -> str:
    """The default as YAML would have it."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel) or (isinstance(value, list) and any(isinstance(one, BaseModel) for one in value)):
        return "its defaults"
    plain = {None: "null", True: "true", False: "false", "": '""'}
    text = plain.get(value) if isinstance(value, str | bool | NoneType) else None
    return f"`{text if text is not None else value}`"


def fixed(field: FieldInfo) -> str:
    """What to say of an entry that can have one value only."""
    return "names this kind" if get_origin(field.annotation) is Literal else ""


if __name__ == "__main__":
    PAGE.write_text(page())
