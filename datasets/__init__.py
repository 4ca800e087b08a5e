"""Where samples come from: the embedded example, users' own stores, simulators, pairs of targets and conditions.

Imported as ``sciffusion.datasets``. Names are loaded when they are first asked for.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "PROBLEMS",
    "ExperimentData",
    "StepSampler",
    "TrainingCases",
    "example_names",
    "example_path",
    "from_windows",
    "open_example",
    "open_experiment",
    "to_windows",
    "write_problem",
    "write_windows",
]

_HOMES = {
    "PROBLEMS": "simulators",
    "ExperimentData": "pairs",
    "StepSampler": "draws",
    "TrainingCases": "training",
    "example_names": "example",
    "example_path": "example",
    "open_example": "example",
    "open_experiment": "pairs",
    "from_windows": "windows",
    "to_windows": "windows",
    "write_problem": "simulators",
    "write_windows": "windows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
