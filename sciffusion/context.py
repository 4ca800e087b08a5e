"""What a denoiser is conditioned on, as tensors and nothing else.

Every entry has the batch first. ``channels`` lie on the same grid as the field; ``vector`` is one feature vector per
sample; ``tokens`` is a sequence; ``valid`` says which cells exist (land or sea masks). Absent entries are None.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

__all__ = ["Context", "window"]


@dataclass(frozen=True)
class Context:
    """Conditioning of one batch; a pytree, so that compiled code and DDP can carry it.

    channels : (batch, channel, *grid); vector : (batch, feature); tokens : (batch, token, feature);
    token_mask : Bool (batch, token), True where a token counts; valid : Bool (batch, 1 or channel, *grid).
    """

    channels: Tensor | None = None
    vector: Tensor | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    valid: Tensor | None = None

    @staticmethod
    def merge(parts: Iterable["Context"]) -> "Context":
        """Concatenate channels, vectors and tokens of several contexts; a cell is valid where all agree."""
        parts = list(parts)
        masks = [_token_mask(part) for part in parts if part.tokens is not None]
        valid: Tensor | None = None
        for part in parts:
            if part.valid is not None:
                valid = part.valid if valid is None else valid & part.valid
        return Context(
            channels=_cat([part.channels for part in parts]),
            vector=_cat([part.vector for part in parts]),
            tokens=_cat([part.tokens for part in parts]),
            token_mask=_cat(masks) if any(part.token_mask is not None for part in parts) else None,
            valid=valid,
        )

    @staticmethod
    def stack(parts: Sequence["Context"]) -> "Context":
        """Contexts with the same entries as one batch: their samples one after the other."""
        entries = {field.name: [getattr(part, field.name) for part in parts] for field in fields(parts[0])}
        return Context(**{name: None if values[0] is None else torch.cat(values) for name, values in entries.items()})

    def map(self, function: Callable[[Tensor], Tensor]) -> "Context":
        """Apply ``function`` to every tensor that is present."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Context(**{name: None if value is None else function(value) for name, value in values.items()})

    def repeat(self, members: int) -> "Context":
        """Repeat each sample ``members`` times in a row: (batch, ...) becomes (batch * members, ...)."""
        return self.map(lambda value: value.repeat_interleave(members, dim=0))

    def crop(self, slices: Sequence[slice]) -> "Context":
        """Keep the `window` ``slices`` (one per grid axis) of what lies on the grid; it may wrap around."""
        cropped = {name: getattr(self, name) for name in ("channels", "valid")}
        cropped = {name: None if value is None else window(value, slices) for name, value in cropped.items()}
        return Context(vector=self.vector, tokens=self.tokens, token_mask=self.token_mask, **cropped)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Context":
        """Move to a device; ``dtype`` applies to floating-point entries only."""
        return self.map(lambda value: value.to(device=device, dtype=dtype if value.is_floating_point() else None))


def window(value: Tensor, slices: Sequence[slice]) -> Tensor:
    """The window ``slices`` (one per grid axis) of ``value`` (batch, channel, *grid).

    A slice that stops beyond the end of its axis goes on at the beginning, for periodic axes. A view where none does.
    """
    for axis, part in enumerate(slices, start=2):
        beyond = 0 if part.stop is None else part.stop - value.shape[axis]
        inside = value[(slice(None),) * axis + (part,)]
        value = torch.cat([inside, value.narrow(axis, 0, beyond)], dim=axis) if beyond > 0 else inside
    return value


def _cat(values: Iterable[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.cat(present, dim=1) if present else None


def _token_mask(part: Context) -> Tensor:
    assert part.tokens is not None
    if part.token_mask is not None:
        return part.token_mask
    return torch.ones(part.tokens.shape[:2], dtype=torch.bool, device=part.tokens.device)


def _flatten(context: Context) -> tuple[list[Any], None]:
    return [getattr(context, field.name) for field in fields(context)], None


def _unflatten(values: Iterable[Any], _: None) -> Context:
    return Context(*values)


_pytree.register_pytree_node(Context, _flatten, _unflatten, serialized_type_name="sciffusion.Context")
