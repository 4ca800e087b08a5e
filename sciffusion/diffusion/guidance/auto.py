"""Autoguidance: away from a weaker version of the same model (Karras et al. 2024, arXiv:2406.02507).

The weaker denoiser (smaller, less trained, or averaged over less of the training) makes the same errors, only larger,
so extrapolating from it corrects them without trading the condition against the spread.
"""

from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance.classifier_free import Extrapolated, Interval

__all__ = ["AutoGuided"]


class AutoGuided(Extrapolated):
    """D = D_weak + weight (D - D_weak), both under the same condition; weight 1 is no guidance.

    ``interval`` limits it to levels low < sigma <= high.
    """

    def __init__(
        self, denoiser: Denoiser, weak: Denoiser, weight: float = 1.0, interval: Interval = (0.0, float("inf"))
    ) -> None:
        super().__init__(denoiser, weak, weight, interval)
