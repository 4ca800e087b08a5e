"""Statistics over the members of every case, beside an ensemble: the group ``statistics`` of its store.

``<variable>_<statistic>`` has dims (*case dims, *channel dims, *grid), quantiles one more in front. One chunk holds one
case, NaN where nothing was written.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from sciffusion.fields import layout
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.layout import MEMBER, STATUS
from sciffusion.fields.markers import FOLDER
from sciffusion.fields.output import remove, temporary, write_text, writing

__all__ = ["GROUP", "LEVEL", "Statistics"]

GROUP = "statistics"
LEVEL = "quantile"
METHOD = "exact, of all members, linear between order statistics"


class Statistics:
    """The statistics of ``store``: ``methods`` maps their names to CF cell methods, ``levels`` are of the quantiles."""

    def __init__(self, store: EnsembleStore, methods: Mapping[str, str], levels: Sequence[float]) -> None:
        self.store, self.methods, self.levels = store, dict(methods), list(levels)
        self.path = store.path / GROUP

    def make(self) -> None:
        """Lay out the group, if no other process has."""
        with self.store.lock(wait=True), writing(self.store.path):
            if (self.path / "zarr.json").is_file():
                return
            new = temporary(self.path, "new")
            remove(new)
            self._make(new)
            new.rename(self.path)

    def _make(self, path: Path) -> None:
        with layout.quiet(), xr.open_zarr(self.store.path, chunks=None, consolidated=False) as ensemble:
            coords = ensemble.coords.to_dataset().drop_vars([MEMBER, STATUS]).load()
            attributes = {key: value for key, value in ensemble.attrs.items() if key not in layout.OWN}
            count = len(self.store.members)
            coords = coords.assign_attrs(attributes, members=count, title=f"statistics of {count} members")
            if self.levels:
                coords = coords.assign_coords({LEVEL: (LEVEL, self.levels, {"units": "1", "long_name": "quantile"})})
            for name, variable in coords.variables.items():
                if variable.dtype.kind == "U":
                    coords[name] = (variable.dims, variable.values.astype(object), variable.attrs)
            coords.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)
            group = zarr.open_group(path, mode="r+")
            for name in self.store.variables:
                self._make_arrays(group, name, ensemble[name])
            zarr.consolidate_metadata(path)

    def _make_arrays(self, group: zarr.Group, name: str, field: xr.DataArray) -> None:
        lead = len(self.store.case_dims)
        sizes = {str(dim): size for dim, size in field.sizes.items() if dim != MEMBER}
        for statistic, method in self.methods.items():
            front = {LEVEL: len(self.levels)} if method == LEVEL else {}
            chunks = (*front.values(), *(1 if i < lead else n for i, n in enumerate(sizes.values())))
            kept = {key: field.attrs[key] for key in ("units", "long_name", "standard_name") if key in field.attrs}
            note = {"quantile_method": METHOD} if front else {"cell_methods": f"{MEMBER}: {method}"}
            group.create_array(
                f"{name}_{statistic}",
                shape=(*front.values(), *sizes.values()),
                dtype=field.dtype if field.dtype.kind == "f" else np.dtype(np.float32),
                chunks=chunks,
                compressors=(ZstdCodec(level=1), Crc32cCodec()),
                fill_value=np.nan,
                dimension_names=[*front, *sizes],
                attributes=kept | note,
            )

    def done(self, case: int) -> bool:
        """Whether the statistics of ``case`` are on disk."""
        return self._marker(case).is_file()

    def write(self, case: int, found: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Write the statistics of one case, (*channel dims, *grid) by variable and name, then its marker."""
        with zarr.config.set({"array.write_empty_chunks": True}), writing(self.path):
            group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            for name, statistics in found.items():
                for statistic, values in statistics.items():
                    array: Any = group[f"{name}_{statistic}"]
                    front = (slice(None),) if self.methods[statistic] == LEVEL else ()
                    array[(*front, *self.store.place(case))] = values.astype(array.dtype)
            self._marker(case).parent.mkdir(exist_ok=True)
            write_text(self._marker(case), json.dumps({"members": len(self.store.members)}))

    def _marker(self, case: int) -> Path:
        return self.store.path / FOLDER / f"{case:08d}" / f"{GROUP}.json"
