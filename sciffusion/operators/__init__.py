"""Linear operators on gridded tensors, their adjoints, and the projection onto what they observe."""

from sciffusion.operators.linear import (
    BlockMean,
    LinearOperator,
    Mask,
    Mean,
    Points,
    Separable,
    Stations,
    stack,
)
from sciffusion.operators.projection import Projection, conjugate_gradients, project

__all__ = [
    "BlockMean",
    "LinearOperator",
    "Mask",
    "Mean",
    "Points",
    "Projection",
    "Separable",
    "Stations",
    "conjugate_gradients",
    "project",
    "stack",
]
