"""Objectives of few-step models, one file per idea: ``objective(student, x0, cond, generator, ...)`` -> (batch,)."""

from sciffusion.diffusion.distillation.base import Draw, Objective
from sciffusion.diffusion.distillation.consistency import ConsistencyDistillation, EasyConsistency
from sciffusion.diffusion.distillation.ensemble import OneStepCRPS
from sciffusion.diffusion.distillation.progressive import ProgressiveDistillation
from sciffusion.diffusion.distillation.tangent import ContinuousConsistency, MeanFlow, trajectory_derivative

__all__ = [
    "ConsistencyDistillation",
    "ContinuousConsistency",
    "Draw",
    "EasyConsistency",
    "MeanFlow",
    "Objective",
    "OneStepCRPS",
    "ProgressiveDistillation",
    "trajectory_derivative",
]
