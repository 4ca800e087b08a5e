"""Labels along a dimension: which positions a range of labels means, and how a label is written down."""

from typing import Any

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError

__all__ = ["is_time", "label_text", "positions"]


def is_time(values: np.ndarray) -> bool:
    """Whether these labels are dates: numpy's, or cftime's of any calendar."""
    if np.issubdtype(values.dtype, np.datetime64):
        return True
    return values.dtype == object and values.size > 0 and hasattr(values.flat[0], "calendar")


def label_text(value: Any) -> str:
    """A label as text; dates in ISO form, cut at the last part that is not zero."""
    if isinstance(value, np.datetime64):
        text = str(value.astype("datetime64[s]"))
    elif hasattr(value, "isoformat"):
        text = value.isoformat()[:19]
    else:
        return str(value.item() if hasattr(value, "item") else value)
    date, _, clock = text.partition("T")
    if clock in ("", "00:00:00"):
        return date
    return f"{date}T{clock[:5] if clock.endswith(':00') else clock}"


def positions(ds: xr.Dataset, dim: str, first: Any, last: Any) -> np.ndarray:
    """Positions along ``dim`` whose label lies in [first, last], both inclusive, in the order of the data.

    A partial date means its whole period (``2041`` to ``2060`` ends with 2060's last hour). Without a coordinate the
    labels are positions. Numbers are compared in either order of the axis; other labels must occur.
    """
    if dim not in ds.coords:
        return np.flatnonzero(_bounded(np.arange(ds.sizes[dim]), first, last))
    values = ds[dim].values
    if is_time(values):
        return np.flatnonzero(_within_dates(values, str(first), str(last)))
    if np.issubdtype(values.dtype, np.number):
        return np.flatnonzero(_bounded(values, first, last))
    return _between_names(values, dim, first, last)


def _bounded(values: np.ndarray, first: Any, last: Any) -> np.ndarray:
    try:
        low, high = sorted((float(first), float(last)))
    except (TypeError, ValueError):
        raise SciffusionError(
            f"labels {first!r} to {last!r} are not numbers", "the axis is numeric (or has no coordinate: positions)"
        ) from None
    slack = 1e-6 * max(abs(low), abs(high))
    return np.asarray((values >= low - slack) & (values <= high + slack))


def _within_dates(values: np.ndarray, first: str, last: str) -> np.ndarray:
    """By comparing ISO text, which orders dates of every calendar; a partial date is a prefix."""
    text = _iso(values)
    low, high = first.replace(" ", "T"), last.replace(" ", "T")
    head = np.array([label[: len(high)] for label in text])
    return np.asarray((text >= low) & (head <= high))


def _iso(values: np.ndarray) -> np.ndarray:
    if np.issubdtype(values.dtype, np.datetime64):
        return np.datetime_as_string(values, unit="s")
    return np.array([value.isoformat()[:19] for value in values])


def _between_names(values: np.ndarray, dim: str, first: Any, last: Any) -> np.ndarray:
    names = [str(value) for value in values]
    for label in (str(first), str(last)):
        if label not in names:
            shown = ", ".join(names[:8])
            raise SciffusionError(f"{dim} has no label {label!r}", f"its labels are {shown}")
    low, high = sorted((names.index(str(first)), names.index(str(last))))
    return np.arange(low, high + 1)
