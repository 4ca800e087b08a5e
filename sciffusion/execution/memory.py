"""How many samples fit: the memory of a call, the memory that is free, the micro-batch that follows."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sciffusion.memory import available_memory

__all__ = ["free_bytes", "microbatch", "peak_bytes"]


def microbatch(call: Callable[[int], Any], device: torch.device, *, most: int, share: float = 0.5) -> int:
    """The largest power of two, at most ``most``, for which ``call(samples)`` stays within ``share`` of free memory.

    ``call`` is measured at one and two samples; memory is affine in their number. At least 1. A store's micro-batch
    is chosen once, as outputs are bitwise reproducible for one size only.
    """
    one, two = (peak_bytes(lambda count=count: call(count), device) for count in (1, 2))  # type: ignore[misc]
    each = max(two - one, 1)
    fit = (share * free_bytes(device) - (one - each)) / each
    size = 1
    while 2 * size <= min(fit, most):
        size *= 2
    return size


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Most bytes of tensors that ``call`` holds at once, beyond what exists before it."""
    if device.type != "cuda":
        with _Tracker() as tracker:
            call()
        return int(tracker.peak)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def free_bytes(device: torch.device) -> int:
    """Memory that can be allocated: of the GPU, or of the machine within this process's cgroup."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return available_memory()


class _Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that are made under it while any tensor uses them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.users: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf, known)
        return out

    def _add(self, tensor: Tensor, known: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in known and key not in self.users:
            return  # a view of something that existed before
        if key not in self.users:
            self.users[key] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[key] += 1
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if not self.users[key]:
            del self.users[key]
            self.now -= size
