"""Guidance and constraints: denoisers that wrap denoisers, so they compose with each other and with every solver."""

from sciffusion.diffusion.guidance.auto import AutoGuided
from sciffusion.diffusion.guidance.classifier_free import ClassifierFree
from sciffusion.diffusion.guidance.constraints import Projected, Retracted, multiplicative
from sciffusion.diffusion.guidance.divergence_free import DivergenceFree
from sciffusion.diffusion.guidance.dps import DPS
from sciffusion.diffusion.guidance.mmps import MMPS
from sciffusion.diffusion.guidance.observations import Observed
from sciffusion.diffusion.guidance.pigdm import PiGDM
from sciffusion.diffusion.guidance.replacement import Replacement
from sciffusion.diffusion.guidance.threshold import Thresholded
from sciffusion.diffusion.guidance.tmpd import TMPD
from sciffusion.errors import SciffusionError

__all__ = [
    "DPS",
    "MMPS",
    "TMPD",
    "AutoGuided",
    "ClassifierFree",
    "DivergenceFree",
    "Observed",
    "PiGDM",
    "Projected",
    "Replacement",
    "Retracted",
    "Thresholded",
    "by_name",
    "multiplicative",
]

_BY_OBSERVATIONS: dict[str, type[Observed] | type[Replacement]] = {
    "mmps": MMPS,
    "dps": DPS,
    "pigdm": PiGDM,
    "tmpd": TMPD,
    "replacement": Replacement,
}


def by_name(name: str = "mmps") -> type[Observed] | type[Replacement]:
    """The guidance by observations called ``name``: all are made by (denoiser, operator, y, noise, channels)."""
    if name not in _BY_OBSERVATIONS:
        raise SciffusionError(
            f"no guidance by observations is called {name!r}", f"known: {', '.join(_BY_OBSERVATIONS)}"
        )
    return _BY_OBSERVATIONS[name]
