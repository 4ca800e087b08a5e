"""Scores, spectra, distributions and a report for anybody's ensemble: xarray in, xarray out."""

from sciffusion.evaluation.crps import crps, threshold_weighted_crps
from sciffusion.evaluation.evaluation import Evaluation
from sciffusion.evaluation.protocol import evaluate

__all__ = ["Evaluation", "crps", "evaluate", "threshold_weighted_crps"]
