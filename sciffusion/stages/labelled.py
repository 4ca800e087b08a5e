"""The cases of an ensemble as coordinates: their labels, which of them were seen in training, where they stand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.fields import axes
from sciffusion.fields.cases import encode_label
from sciffusion.stages.conditions import Check

__all__ = ["case_coordinates", "case_dims", "positions", "training_cases"]

_KEPT = ("units", "calendar", "dtype")  # encoding of a case coordinate that an ensemble takes over


def case_dims(check: Check) -> tuple[str, ...]:
    """Case dims of the cases to be sampled."""
    return check.cases[0].dims if check.cases else ()


def case_coordinates(check: Check) -> dict[str, xr.DataArray]:
    """Case coordinates of the ensemble, with the attributes and calendar of the conditions."""
    leading = {}
    for dim in case_dims(check):
        values = list({encode_label(case.values[dim]): case.values[dim] for case in check.cases}.values())
        like = next((data[dim] for data in check.conditions.values() if dim in data.coords), None)
        leading[dim] = xr.DataArray(np.array(values), dims=dim, attrs={} if like is None else axes.attributes(like))
        leading[dim].encoding = {} if like is None else {k: like.encoding[k] for k in _KEPT if k in like.encoding}
    return leading


def training_cases(check: Check, card: Mapping[str, Any]) -> dict[str, xr.DataArray]:
    """Whether each label along the split dim was trained on, or watched in training to choose the weights."""
    dims = case_dims(check)
    if not dims:
        return {}
    dim = card.get("split_dim")
    dim = dim if dim in dims else dims[0]
    seen = {str(label) for split in ("training", "validation") for label in card.get(f"{split}_labels", [])}
    labels = dict.fromkeys(str(encode_label(case.values[dim])) for case in check.cases)
    flags = np.array([label in seen for label in labels])
    words = {"long_name": "case was used in training or validation"}
    return {"training_case": xr.DataArray(flags, dims=dim, attrs=words)}


def positions(whole: xr.Dataset, part: xr.Dataset, dim: str) -> list[int]:
    """Positions of the labels of ``part`` in ``whole``."""
    places = {encode_label(value): index for index, value in enumerate(whole[dim].values)}
    return [places[encode_label(value)] for value in part[dim].values]
