"""Forecasts: an emulator of the next state, used again and again on its own answers; members are trajectories.

Each member's states are its own, so a member is prepared apart; its noise is keyed by the initial time and the time
that is drawn, and does not depend on which other members are forecast.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import xarray as xr

from sciffusion import config
from sciffusion.conditioners.previous import Previous
from sciffusion.emulator import Drawing, Emulator, batch_of, member_numbers
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, encode_label
from sciffusion.stages.items import Item

__all__ = ["forecast", "forecast_steps", "time_dim"]

COHERENCE = "members are trajectories from the initial state"


def forecast(
    emulator: Emulator,
    initial: xr.Dataset,
    steps: int,
    members: int | Sequence[int] = 8,
    **options: Any,
) -> xr.Dataset:
    """Forecast ``steps`` times ahead of ``initial`` into memory: a CF Dataset (member, time, *grid).

    Parameters
    ----------
    initial
        States up to the initial time, as many as the emulator looks back; of them the last is the initial one.
    options
        Those of `forecast_steps`.
    """
    parts = list(forecast_steps(emulator, initial, steps, members, **options))
    whole = xr.concat(parts, time_dim(emulator))
    return whole.assign_attrs(emulator.attributes() | {"time_coherence": COHERENCE})


def forecast_steps(
    emulator: Emulator,
    initial: xr.Dataset,
    steps: int,
    members: int | Sequence[int] = 8,
    *,
    conditions: Mapping[str, xr.Dataset] | None = None,
    **options: Unpack[Drawing],
) -> Iterator[xr.Dataset]:
    """As `forecast`, one time after the other: Datasets (member, time of length 1, *grid).

    ``conditions`` are the data of conditions other than the earlier states, at the times forecast; ``options`` those of
    `Emulator.sample`.

    Raises SciffusionError for an emulator that takes no earlier states, for too few of them, for no or repeated members
    and for no steps.
    """
    numbers = member_numbers(members)
    if steps < 1:
        raise SciffusionError(f"steps {steps}", "give 1 or more times ahead")
    previous = _previous(emulator)
    place = emulator.ready(**options)
    size = batch_of(options.get("batch_size"), place)
    seed, sampler = options.get("seed", 0), emulator.sampler(options.get("sampler"))
    start, _ = previous[0].accept(initial)
    states = dict.fromkeys(numbers, start)
    dim, now = previous[0].settings.dim, start[previous[0].settings.dim].values[-1]
    first = encode_label(now)
    for _ in range(steps):
        now = previous[0].after(now)
        case = Case((first, encode_label(now)), {dim: now})
        drawn = _drawn(emulator, case, states, conditions or {}, size, seed, sampler)
        states = {number: _continued(states[number], drawn.sel(member=number), previous) for number in numbers}
        yield drawn


def time_dim(emulator: Emulator) -> str:
    """The dim along which the emulator looks back. Raises SciffusionError where it does not."""
    return _previous(emulator)[0].settings.dim


def _previous(emulator: Emulator) -> list[Previous]:
    """The conditions that are earlier states, of the target's own variables all."""
    found = [reader for reader in emulator.stage.readers.values() if isinstance(reader, Previous)]
    if not found:
        raise SciffusionError("this emulator takes no earlier states", "train one with --recipe forecast")
    for reader in found:
        if unknown := [name for name in reader.variables if name not in emulator.stage.codec.names]:
            raise SciffusionError(f"{reader.name}: {unknown[0]!r} is not forecast", "forecast it too, or leave it out")
    return found


def _drawn(
    emulator: Emulator,
    case: Case,
    states: Mapping[int, xr.Dataset],
    conditions: Mapping[str, xr.Dataset],
    size: int,
    seed: int,
    sampler: config.Sampler,
) -> xr.Dataset:
    """The next state of every member."""
    stage, parts = emulator.stage, []
    names = [reader.name for reader in _previous(emulator)]
    numbers = list(states)
    for first in range(0, len(numbers), size):
        batch = numbers[first : first + size]
        items = [
            Item(stage.prepare({**conditions, **dict.fromkeys(names, states[number])}, case), number)
            for number in batch
        ]
        padded = items + [items[-1]] * (size - len(items))
        fields = stage.finish(stage.sample(padded, seed=seed, sampler=sampler).cpu(), padded)
        parts += [stage.decode(fields[row : row + 1], item.prepared, [item.member]) for row, item in enumerate(items)]
    return xr.concat(parts, "member")


def _continued(states: xr.Dataset, new: xr.Dataset, previous: Sequence[Previous]) -> xr.Dataset:
    """A member's states with the new one behind, no more of them than are looked back on."""
    dim = previous[0].settings.dim
    most = max(max(reader.settings.lags) for reader in previous)
    names = list(states.data_vars)
    longer = xr.concat(
        [states, new[names].drop_vars("member")],
        dim,
        data_vars="minimal",
        coords="minimal",
        join="override",
        compat="override",
    )
    return longer.isel({dim: slice(-most, None)})
