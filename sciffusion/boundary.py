"""Names of boundary conditions, one per grid axis, shared by grids (which choose) and networks (which pad).

``periodic`` wraps around; ``reflect`` mirrors without repeating the edge row; ``pole`` mirrors across a pole of a
lat-lon grid, which flips the rows and rolls them by half a turn along the last grid axis; ``constant`` pads zeros.
"""

from typing import Literal, get_args

__all__ = ["NAMES", "Boundary"]

Boundary = Literal["periodic", "reflect", "pole", "constant"]
NAMES: tuple[Boundary, ...] = get_args(Boundary)
