"""Names of parts (networks, conditioners, stages, ...) to their classes, imported only when they are asked for.

Built-in parts are listed here as ``module:attribute``; a user's own class comes from an installed package's entry
point in the group ``sciffusion.<group>``. Nothing is ever imported because a model folder names it: a name that is
neither built in nor installed is an error.
"""

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from sciffusion.errors import SciffusionError

__all__ = ["built_in", "get", "installed", "names"]

_BUILT_IN: dict[str, dict[str, str]] = {
    "networks": {
        "unet": "sciffusion.networks.unet:UNet",
        "dit": "sciffusion.networks.dit:DiT",
        "mlp": "sciffusion.networks.mlp:MLP",
        "autoencoder": "sciffusion.networks.autoencoder:Autoencoder",
    },
    "conditioners": {
        "coarse": "sciffusion.conditioners.coarse:CoarseField",
        "coarse-tokens": "sciffusion.conditioners.coarse_tokens:CoarseTokens",
        "previous": "sciffusion.conditioners.previous:Previous",
        "text": "sciffusion.conditioners.text:Text",
        "static": "sciffusion.conditioners.static:StaticField",
        "scalar": "sciffusion.conditioners.scalar:Scalar",
        "calendar": "sciffusion.conditioners.calendar:Calendar",
        "position": "sciffusion.conditioners.position:Position",
    },
    "stages": {
        "autoencoder": "sciffusion.stages.autoencoder:AutoencoderStage",
        "denoiser": "sciffusion.stages.denoiser:DenoiserStage",
        "flowmap": "sciffusion.stages.flowmap:FlowMapStage",
        "regression": "sciffusion.stages.regression:RegressionStage",
        "interpolation": "sciffusion.stages.interpolation:InterpolationStage",
        "linear": "sciffusion.stages.linear:LinearGaussianStage",
        "climatology": "sciffusion.stages.climatology:ClimatologyStage",
        "quantile-mapping": "sciffusion.stages.quantile:QuantileMappingStage",
        "analogues": "sciffusion.stages.analogues:AnalogueStage",
    },
}


def names(group: str) -> list[str]:
    """Every known name of ``group``, built in or installed."""
    return sorted({*built_in(group), *installed(group)})


def built_in(group: str) -> list[str]:
    """Names of ``group`` that this package brings."""
    return sorted(_BUILT_IN.get(group, {}))


def installed(group: str) -> set[str]:
    """Names that other packages offer in ``group``."""
    return {point.name for point in entry_points(group=f"sciffusion.{group}")}


def get(group: str, name: str) -> Any:
    """The class that ``name`` stands for. Raises SciffusionError for an unknown name, with the nearest known one."""
    target = _BUILT_IN.get(group, {}).get(name)
    if target is not None:
        module, attribute = target.split(":")
        return getattr(import_module(module), attribute)
    for point in entry_points(group=f"sciffusion.{group}", name=name):
        return point.load()
    known = names(group)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SciffusionError(f"no {group.rstrip('s')} is called {name!r}", f"{hint}known: {', '.join(known)}")
