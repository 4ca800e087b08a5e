"""Autoguidance: away from a weaker version of the same model (Karras et al. 2024, arXiv:2406.02507).

The weaker denoiser (smaller, less trained, or averaged over less of the training) makes the same errors, only larger,
so extrapolating from it corrects them without trading the condition against the spread.
"""

from sciffusion.diffusion.guidance.classifier_free import Extrapolated

__all__ = ["AutoGuided"]


class AutoGuided(Extrapolated):
    """D = D_weak + weight (D - D_weak) with ``other`` = D_weak, both under the same condition; parameters as there."""
