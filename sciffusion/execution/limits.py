"""A bound on the memory that a model may take while it is built from a description that somebody else wrote."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sciffusion.errors import SciffusionError

__all__ = ["AllocationLimit"]


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, tensors made from nothing (empty, zeros, rand, ...) may take ``limit`` bytes in all.

    What is too much is refused before it is allocated: raises SciffusionError, with ``what`` in its message.
    """

    def __init__(self, limit: int, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left, self.what, self.limit = limit, what, limit

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        self.left -= _new_bytes(args, kwargs)
        if self.left < 0:
            most = f"more than {self.limit / 2**30:.1f} GiB, but its weights are smaller"
            raise SciffusionError(
                f"{self.what}: describes a model of {most}", "do not use a model that you do not trust"
            )
        return func(*args, **kwargs)


def _new_bytes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Bytes of the tensor that a factory function is about to make; 0 for functions of tensors."""
    if any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
        return 0
    size = args[0] if args else kwargs.get("size", ())
    if not isinstance(size, (list, tuple)) or not all(isinstance(length, int) for length in size):
        return 0
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return prod(size) * dtype.itemsize
