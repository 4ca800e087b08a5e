"""Small arrays and attributes as JSON, exactly: the form in which grids and variables are kept in a model folder.

Numbers and strings are lists, so that a reader sees them; an array of more than 4096 numbers (2-D latitudes of a
regional model) is compressed. Times keep their calendar.
"""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import cftime
import numpy as np

__all__ = ["array_from_json", "array_to_json", "attributes_to_json"]

_LONGEST_LIST = 4096


def array_to_json(array: np.ndarray) -> dict[str, Any]:
    """Dtype, shape and values of a numeric, boolean, string, datetime64, timedelta64 or cftime array."""
    array = np.asarray(array)
    shape = list(array.shape)
    if array.dtype == object and array.size and isinstance(array.flat[0], cftime.datetime):
        calendar = array.flat[0].calendar
        return {"dtype": "cftime", "calendar": calendar, "shape": shape, "values": [_iso(t) for t in array.flat]}
    if array.dtype.kind in "OUS":
        return {"dtype": "str", "shape": shape, "values": [str(value) for value in array.flat]}
    numbers = array.view(np.int64) if array.dtype.kind in "mM" else array
    if array.size > _LONGEST_LIST:
        little = numbers.astype(numbers.dtype.newbyteorder("<"))
        packed = base64.b64encode(zlib.compress(little.tobytes())).decode("ascii")
        return {"dtype": _dtype_name(array), "shape": shape, "zlib": packed}
    values = [value if np.isfinite(value) else str(value) for value in numbers.ravel().tolist()]
    return {"dtype": _dtype_name(array), "shape": shape, "values": values}


def array_from_json(entry: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `array_to_json`."""
    shape = tuple(entry["shape"])
    if entry["dtype"] == "cftime":
        times = [cftime.datetime.strptime(value, _ISO, calendar=entry["calendar"]) for value in entry["values"]]
        return np.array(times, dtype=object).reshape(shape)
    if entry["dtype"] == "str":
        return np.array(entry["values"], dtype=object).reshape(shape)
    dtype = np.dtype(entry["dtype"])
    stored = np.dtype(np.int64) if dtype.kind in "mM" else dtype
    if "zlib" in entry:
        raw = np.frombuffer(zlib.decompress(base64.b64decode(entry["zlib"])), stored.newbyteorder("<")).astype(stored)
    else:
        raw = np.array(entry["values"]).astype(stored)
    return raw.view(dtype).reshape(shape) if dtype.kind in "mM" else raw.reshape(shape)


_ISO = "%Y-%m-%dT%H:%M:%S.%f"


def _iso(time: cftime.datetime) -> str:
    return str(time.isoformat(timespec="microseconds"))


def attributes_to_json(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes with numpy scalars and arrays turned into plain numbers and lists."""
    return {str(name): _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)


def _dtype_name(array: np.ndarray) -> str:
    return array.dtype.newbyteorder("=").str.lstrip("=<>|") if array.dtype.kind in "mM" else array.dtype.name
