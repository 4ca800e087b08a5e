"""Grid: what the cells of a field are. Dims, coordinates, geometry, edges, areas, boundaries; numpy only.

A dim has a 1-D coordinate of any kind (ascending or descending, regular or not), or none, and then cells of a given
spacing from 0 on. Coordinates on several grid dims (2-D latitudes of a projected grid) are carried along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import xarray as xr

from sciffusion.boundary import Boundary
from sciffusion.errors import SciffusionError
from sciffusion.fields import axes
from sciffusion.fields.arrays import array_from_json, array_to_json, attributes_to_json

__all__ = ["Grid"]

Geometry = Literal["plane", "sphere"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells of a product grid, slowest dim first.

    ``coords[i]`` (shape[i],) or None; ``edges[i]`` (shape[i] + 1,) overrides the edges derived from the coordinate;
    ``steps[i]`` is the cell width of a dim without coordinate; ``auxiliary`` maps names to (dims, values, attributes).
    On the sphere, latitudes and longitudes are in degrees, areas are those of the unit sphere.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: tuple[np.ndarray | None, ...]
    geometry: Geometry = "plane"
    periodic: tuple[bool, ...] = ()
    steps: tuple[float, ...] = ()
    edges: tuple[np.ndarray | None, ...] = ()
    attrs: tuple[dict[str, Any], ...] = ()
    auxiliary: Mapping[str, axes.Auxiliary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        defaults: dict[str, tuple[Any, ...]] = {"periodic": (False,), "steps": (1.0,), "edges": (None,), "attrs": ({},)}
        for name, default in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, default * self.rank)
        for dim, size, coord in zip(self.dims, self.shape, self.coords, strict=True):
            if coord is not None:
                axes.check_coordinate(dim, coord)
                if len(coord) != size:
                    raise ValueError(f"{dim}: {len(coord)} coordinates for {size} cells")
        found = [axis for axis in (self.latitude_axis, self.longitude_axis) if axis is not None]
        if self.geometry == "sphere" and (len(found) < 2 or any(self.coords[axis] is None for axis in found)):
            raise SciffusionError(
                f"no latitude and longitude coordinates among the grid dims {', '.join(self.dims)}",
                "give them units degrees_north and degrees_east, or set geometry: plane",
            )

    @classmethod
    def from_dataset(
        cls,
        ds: xr.Dataset | xr.DataArray,
        dims: Sequence[str],
        geometry: Geometry = "plane",
        periodic: Sequence[str] = (),
        spacing: Mapping[str, float] | None = None,
        like: "Grid | None" = None,
    ) -> Self:
        """The grid of ``ds`` along ``dims``. Cell bounds are taken from a CF ``bounds`` variable where there is one.

        Without coordinate a dim takes its ``spacing``, else it spans the extent that it has in ``like``, else 1 a cell.
        Raises SciffusionError for an unknown dim or a coordinate that is not strictly monotonic.
        """
        for dim in (*dims, *periodic):
            if dim not in ds.dims or dim not in dims:
                raise SciffusionError(f"no grid dim {dim!r}", f"the dims are {', '.join(map(str, ds.dims))}")
        named = [ds[dim].variable if dim in ds.coords else None for dim in dims]
        steps = [float((spacing or {}).get(dim, _extent(like, dim) / ds.sizes[dim])) for dim in dims]
        return cls(
            dims=tuple(dims),
            shape=tuple(ds.sizes[dim] for dim in dims),
            coords=tuple(None if coord is None else coord.values for coord in named),
            geometry=geometry,
            periodic=tuple(dim in periodic for dim in dims),
            steps=tuple(1.0 if step != step else step for step in steps),
            edges=tuple(None if coord is None else axes.contiguous_bounds(ds, coord) for coord in named),
            attrs=tuple({} if coord is None else axes.attributes(coord) for coord in named),
            auxiliary=axes.auxiliary(ds, dims),
        )

    @property
    def rank(self) -> int:
        """Number of grid dims."""
        return len(self.dims)

    @cached_property
    def latitude_axis(self) -> int | None:
        """Index of the latitude dim on the sphere; on the plane None."""
        return axes.find_axis("latitude", self.dims, self.attrs) if self.geometry == "sphere" else None

    @cached_property
    def longitude_axis(self) -> int | None:
        """Index of the longitude dim on the sphere; on the plane None."""
        return axes.find_axis("longitude", self.dims, self.attrs) if self.geometry == "sphere" else None

    @property
    def spacing(self) -> tuple[float, ...]:
        """Mean cell width per axis, in the units of the coordinate (seconds for times)."""
        return tuple(float(np.abs(np.diff(self.positions(i))).mean()) if n > 1 else self.extent(i)
                     for i, n in enumerate(self.shape))  # fmt: skip

    def positions(self, axis: int) -> np.ndarray:
        """Cell centres (n,) as float64; times in seconds since 1970."""
        coord = self.coords[axis]
        if coord is None:
            return (np.arange(self.shape[axis]) + 0.5) * self.steps[axis]
        return axes.positions(coord)

    def axis_bounds(self, axis: int) -> np.ndarray:
        """Cell edges (n + 1,) in the direction of the coordinate; latitudes end at the poles."""
        if (edges := self.edges[axis]) is not None:
            return edges.astype(np.float64)
        if self.coords[axis] is None:
            return np.arange(self.shape[axis] + 1) * self.steps[axis]
        if axis == self.latitude_axis:
            return axes.latitude_edges(self.positions(axis))
        return axes.cell_edges(self.positions(axis), self.steps[axis])

    def extent(self, axis: int) -> float:
        """Length of the domain along ``axis``, in units of the coordinate."""
        edges = self.axis_bounds(axis)
        return float(abs(edges[-1] - edges[0]))

    def period(self, axis: int) -> float | None:
        """Length after which the coordinate repeats itself: 360 for longitudes, the extent of a periodic dim."""
        if axis == self.longitude_axis:
            return 360.0
        return self.extent(axis) if self.periodic[axis] else None

    def axis_measure(self, axis: int) -> np.ndarray:
        """Measure of the cells (n,), whose product is the area: widths, differences of sin(latitude), radians east."""
        measure: np.ndarray = np.abs(np.diff(self.measured(axis, self.axis_bounds(axis))))
        return measure

    def measured(self, axis: int, values: np.ndarray) -> np.ndarray:
        """Map coordinate values to the variable in which cell measure is length."""
        if axis not in (self.latitude_axis, self.longitude_axis):
            return values
        radians: np.ndarray = np.deg2rad(values)
        sines: np.ndarray = np.sin(radians)
        return radians if axis == self.longitude_axis else sines

    def cell_area(self) -> np.ndarray:
        """Cell areas (*shape), float64, divided by their mean."""
        area: np.ndarray = np.ones(())
        for axis in range(self.rank):
            area = np.multiply.outer(area, self.axis_measure(axis))
        return np.asarray(area / area.mean())

    @cached_property
    def pole_ends(self) -> tuple[bool, bool]:
        """Whether the (first, last) latitude cell touches a pole."""
        if self.latitude_axis is None:
            return False, False
        edges = np.abs(self.axis_bounds(self.latitude_axis))[[0, -1]] > 90 - 1e-6
        return bool(edges[0]), bool(edges[1])

    @cached_property
    def has_pole_rows(self) -> tuple[bool, bool]:
        """Whether the (first, last) row of latitudes lies at a pole: one point on the sphere, many cells here."""
        if self.latitude_axis is None:
            return False, False
        ends = np.abs(self.positions(self.latitude_axis))[[0, -1]] > 90 - 1e-4
        return bool(ends[0]), bool(ends[1])

    def boundary(self) -> tuple[Boundary, ...]:
        """Boundary per axis; ``pole`` rolls by half a turn, so the last axis must be periodic and of even length."""
        names: list[Boundary] = ["periodic" if wraps else "reflect" for wraps in self.periodic]
        last = self.rank - 1
        turns = self.longitude_axis == last and self.periodic[last] and self.shape[last] % 2 == 0
        if self.latitude_axis is not None and all(self.pole_ends) and turns:
            names[self.latitude_axis] = "pole"
        return tuple(names)

    def window(self, slices: Sequence[slice]) -> "Grid":
        """The sub-grid of ``slices`` (step 1); a dim that is cut is no longer periodic."""
        ranges = [range(*cut.indices(n)) for cut, n in zip(slices, self.shape, strict=True)]
        return replace(
            self,
            shape=tuple(len(r) for r in ranges),
            coords=tuple(None if c is None else c[r.start : r.stop] for c, r in zip(self.coords, ranges, strict=True)),
            periodic=tuple(p and len(r) == n for p, r, n in zip(self.periodic, ranges, self.shape, strict=True)),
            edges=tuple(self.axis_bounds(i)[r.start : r.stop + 1] for i, r in enumerate(ranges)),
            auxiliary={
                name: (dims, values[tuple(slices[self.dims.index(dim)] for dim in dims)], attrs)
                for name, (dims, values, attrs) in self.auxiliary.items()
            },
        )

    def without(self, dim: str) -> "Grid":
        """The grid of the other dims."""
        kept = [axis for axis, name in enumerate(self.dims) if name != dim]
        along = ("dims", "shape", "coords", "periodic", "steps", "edges", "attrs")
        parts = {name: tuple(getattr(self, name)[axis] for axis in kept) for name in along}
        auxiliary = {name: one for name, one in self.auxiliary.items() if dim not in one[0]}
        return Grid(**parts, geometry=self.geometry, auxiliary=auxiliary)

    def coarsened(self, factor: Mapping[str, float]) -> "Grid":
        """A grid of cells ``factor`` times as wide along the dims named, of the same extent (factors need not divide).

        Equal cells where this grid's are (181 rows from pole to pole by 4: 45 rows of 4 degrees), else cells of equally
        many fine ones.
        """
        if unknown := set(factor) - set(self.dims):
            raise SciffusionError(f"no grid dim {sorted(unknown)[0]!r} to coarsen", f"the dims are {self.dims}")
        edges = [self._coarse_edges(i, float(factor.get(dim, 1.0))) for i, dim in enumerate(self.dims)]
        kept = [factor.get(dim, 1.0) == 1.0 for dim in self.dims]
        return replace(
            self,
            shape=tuple(len(e) - 1 for e in edges),
            coords=tuple(
                c if c is None or keep else axes.at_positions((e[1:] + e[:-1]) / 2, c)
                for c, e, keep in zip(self.coords, edges, kept, strict=True)
            ),
            steps=tuple(float(abs(e[-1] - e[0])) / (len(e) - 1) for e in edges),
            edges=tuple(edges),
            auxiliary={},
        )

    def _coarse_edges(self, axis: int, factor: float) -> np.ndarray:
        edges, n = self.axis_bounds(axis), self.shape[axis]
        if factor == 1.0:
            return edges
        if factor < 1:
            raise SciffusionError(
                f"a coarsening factor of {factor:g} along {self.dims[axis]!r}", "factors are 1 or more"
            )
        whole = n - sum(self.has_pole_rows) / 2 if axis == self.latitude_axis else n
        cells = max(1, round(whole / factor))
        inner = np.abs(np.diff(edges))[1:-1]
        if n < 4 or inner.max() <= 1.2 * inner.min():
            return np.linspace(edges[0], edges[-1], cells + 1)
        stretched: np.ndarray = np.interp(np.linspace(0, n, cells + 1), np.arange(n + 1), edges)
        return stretched

    def same_cells(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Whether both have the same cells in the same order, to ``tolerance`` of a cell width."""
        if self.shape != other.shape:
            return False
        offsets = [np.abs(self.axis_bounds(i) - other.axis_bounds(i)).max() for i in range(self.rank)]
        return all(offset <= tolerance * step for offset, step in zip(offsets, self.spacing, strict=True))

    def coords_dataset(self) -> xr.Dataset:
        """The coordinates as they came, auxiliary ones included, with their attributes."""
        named = zip(self.dims, self.coords, self.attrs, strict=True)
        coords: dict[str, Any] = {dim: ((dim,), c, a) for dim, c, a in named if c is not None}
        return xr.Dataset(coords=coords | dict(self.auxiliary))

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        return {
            "dims": list(self.dims),
            "shape": list(self.shape),
            "coords": [None if c is None else array_to_json(c) for c in self.coords],
            "geometry": self.geometry,
            "periodic": list(self.periodic),
            "steps": list(self.steps),
            "edges": [None if e is None else array_to_json(e) for e in self.edges],
            "attrs": [attributes_to_json(a) for a in self.attrs],
            "auxiliary": {
                name: [list(dims), array_to_json(values), attributes_to_json(attrs)]
                for name, (dims, values, attrs) in self.auxiliary.items()
            },
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        auxiliary = {n: (tuple(d), array_from_json(v), dict(a)) for n, (d, v, a) in entry["auxiliary"].items()}
        return cls(
            dims=tuple(entry["dims"]),
            shape=tuple(entry["shape"]),
            coords=tuple(None if c is None else array_from_json(c) for c in entry["coords"]),
            geometry=entry["geometry"],
            periodic=tuple(entry["periodic"]),
            steps=tuple(entry["steps"]),
            edges=tuple(None if e is None else array_from_json(e) for e in entry["edges"]),
            attrs=tuple(entry["attrs"]),
            auxiliary=auxiliary,
        )


def _extent(like: Grid | None, dim: str) -> float:
    return like.extent(like.dims.index(dim)) if like is not None and dim in like.dims else float("nan")
