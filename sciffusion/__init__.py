"""Diffusion models for physics fields on gridded xarray data.

The public names below are imported on first use (PEP 562), so that ``import sciffusion`` loads neither torch nor
xarray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciffusion import conditioners, datasets, diffusion, evaluation, fields, networks
    from sciffusion.config import Experiment, Sampler
    from sciffusion.emulator import Emulator, load
    from sciffusion.errors import SciffusionError
    from sciffusion.evaluation import Evaluation, evaluate
    from sciffusion.generation import generate
    from sciffusion.training import train

__version__ = "0.1.0"

__all__ = [
    "Emulator",
    "Evaluation",
    "Experiment",
    "Sampler",
    "SciffusionError",
    "__version__",
    "conditioners",
    "datasets",
    "diffusion",
    "evaluate",
    "evaluation",
    "fields",
    "generate",
    "load",
    "networks",
    "train",
]

_HOME = {
    "Emulator": "emulator",
    "Evaluation": "evaluation",
    "Experiment": "config",
    "Sampler": "config",
    "SciffusionError": "errors",
    "evaluate": "evaluation",
    "generate": "generation",
    "load": "emulator",
    "train": "training",
}
_ROOMS = {"conditioners", "datasets", "diffusion", "evaluation", "fields", "networks"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"sciffusion.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'sciffusion' has no attribute {name!r}")
    value = getattr(import_module(f"sciffusion.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
