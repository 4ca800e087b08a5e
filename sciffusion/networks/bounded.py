"""What networks on a grid share: they are told the grid's boundary by name."""

from collections.abc import Sequence

from torch import nn

from sciffusion.boundary import Boundary
from sciffusion.networks.padding import check

__all__ = ["Bounded"]


class Bounded(nn.Module):
    """A network on ``rank`` grid axes. ``boundary``, one name per axis, may be reassigned at any time."""

    def __init__(self, rank: int, boundary: Sequence[Boundary]) -> None:
        super().__init__()
        self.rank = rank
        self.boundary = tuple(boundary)

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """Boundary names, one per grid axis."""
        return self._boundary

    @boundary.setter
    def boundary(self, names: Sequence[Boundary]) -> None:
        check(names, self.rank)
        self._boundary = tuple(names)
