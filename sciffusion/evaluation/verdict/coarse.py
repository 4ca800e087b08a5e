"""Agreement with the coarse input."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.words import number

__all__ = ["coarse"]

EXACT = 1e-5  # coarse consistency, in sd of the coarse field, that counts as exact


def coarse(one: xr.Dataset) -> Iterator[Finding]:
    """How far coarsened members are from what they were given; whether that is wrong depends on the coarse model."""
    rms, largest = (float(one[name].isel(system=0)) for name in ("coarse_rms", "coarse_largest"))
    if not np.isfinite(rms):
        return
    sizes = f"{number(rms)} of its sd (rms), {number(largest)} at most"
    said = (
        Statement(f"Members agree with the coarse input to {largest:.0e} of its sd.", True)
        if largest <= EXACT
        else Statement(f"Members depart from the coarse input by {sizes}.", None)
    )
    yield Finding(np.nan, False, said, said)
