"""A codec of two plain channels on a periodic plane, and a coarse condition that answers what it was given."""

import xarray as xr
from torch import nn

from sciffusion.fields.fit import fit_codec
from sciffusion.fields.grid import Grid
from sciffusion.fields.variables import target_variables
from sciffusion.settings import Variable

__all__ = ["CoarseGuess", "simple_codec"]


class CoarseGuess(nn.Module):
    """``conditions`` maps a case's first label to (baseline, coarse)."""

    def state(self):
        return {}, {}

    def baseline(self, conditions, case, window=None):
        return conditions[case.labels[0]][0]

    def coarse(self, conditions, case, window=None):
        return conditions[case.labels[0]][1]


def simple_codec(fields, baselines):
    """Codec of variables a and b, fitted on ``fields`` and ``baselines`` (case, 2, y, x)."""
    dims = ("time", "y", "x")
    data = xr.Dataset({name: (dims, fields[:, i]) for i, name in enumerate("ab")})
    grid = Grid(dims=("y", "x"), shape=fields.shape[2:], coords=(None, None), periodic=(True, True))
    variables = target_variables(data, {name: Variable() for name in "ab"}, ("y", "x"))
    return fit_codec(list(zip(fields, baselines, strict=True)), variables, grid)
