"""Copies between host and device that the device does not wait for: pinned memory, asynchronous, with an event."""

import torch
from torch import Tensor

__all__ = ["Arriving", "to_device"]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; the caller goes on while a GPU copies it."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_cuda else tensor.pin_memory()).to(device, non_blocking=True)


class Arriving:
    """A tensor on its way to the host: `wait`, in any thread, returns it once it is there."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # whoever waits sleeps
            self._event.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """The tensor in host memory."""
        event = self._event  # another thread may be here too
        if event is not None:
            event.synchronize()
            self._event = None
        return self._host
