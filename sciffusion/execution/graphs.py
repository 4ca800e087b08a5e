"""A function of tensors recorded once as a CUDA graph and replayed: one launch instead of hundreds.

Works for a network call and for a whole sampling loop alike, whatever nothing in it depends on values.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sciffusion.errors import reason

__all__ = ["Captured"]

log = logging.getLogger("sciffusion")
WARM_UP = 3  # calls before recording: libraries choose algorithms and allocate workspaces
KEPT = 4  # shapes whose graphs are kept


@dataclass
class _Record:
    """A graph with the tensors that it reads and writes, and what was copied into them last."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Any]
    output: Any
    last: list[tuple[Any, int]] = field(default_factory=list)


class Captured:
    """``function`` with one CUDA graph per combination of shapes.

    Arguments are pytrees of tensors (a Context is one) and constants. The answer is the caller's own copy. Inputs that
    are the very tensors of the call before, unchanged, are not copied again (conditions during sampling). On other
    devices than CUDA, where gradients are asked for, or after recording has failed (one line in the log), the function
    is called as it is.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.broken = False
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def __call__(self, *args: Any) -> Any:
        """Replay, recording first where the shapes are new."""
        leaves, spec = tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if self.broken or not _capturable(tensors):
            return self.function(*args)
        key = (str(spec), *(_signature(leaf) for leaf in leaves))
        record = self._records.get(key)
        if record is None:
            try:
                record = self._records[key] = self._capture(leaves, spec)
            except Exception as error:
                self.broken = True
                self._records.clear()
                log.warning("no CUDA graph (%s): the network runs without", reason(error))
                return self.function(*args)
            while len(self._records) > KEPT:
                self._records.popitem(last=False)
        self._records.move_to_end(key)
        return _replay(record, leaves)

    def _capture(self, leaves: list[Any], spec: Any) -> _Record:
        inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args = tree_unflatten(inputs, spec)
        device = next(leaf.device for leaf in inputs if isinstance(leaf, Tensor))
        with torch.cuda.device(device):  # which need not be the current one
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.function(*args)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # torch's own stream of captures is on whichever GPU the process captured first; other threads go on writing
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                output = self.function(*args)
        return _Record(graph, inputs, output)


def _replay(record: _Record, leaves: list[Any]) -> Any:
    known = record.last or [(None, -1)] * len(leaves)
    for place, value, (source, version) in zip(record.inputs, leaves, known, strict=True):
        if isinstance(value, Tensor) and not (value is source and _version(value) == version >= 0):
            place.copy_(value)
    record.last = [(leaf, _version(leaf)) for leaf in leaves]
    record.graph.replay()
    return _own(record.output)


def _own(output: Any) -> Any:
    flat, spec = tree_flatten(output)
    return tree_unflatten([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in flat], spec)


def _version(leaf: Any) -> int:
    """Counter of changes in place; inference tensors have none and count as changed."""
    return leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else -1


def _capturable(tensors: list[Tensor]) -> bool:
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if not tensors or differentiated or not all(tensor.is_cuda for tensor in tensors):
        return False
    return not torch.cuda.is_current_stream_capturing()  # part of a larger graph, such as a whole loop


def _signature(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device)
    return repr(leaf)
