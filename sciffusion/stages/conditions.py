"""Which data serve which condition of a chain of stages, and the cases that they define."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, cases_of
from sciffusion.stages.base import Stage

__all__ = ["Cases", "Check", "Conditions", "check_conditions"]

Conditions = xr.Dataset | Mapping[str, xr.Dataset]
Cases = Mapping[str, Any] | Sequence[Case] | None


@dataclass(frozen=True)
class Check:
    """What would be used for sampling: conditions by name, the cases they define, and what is remarkable.

    ``messages`` says what was converted or is unused; ``outside`` lists, per case label, the variables beyond their
    range in training.
    """

    conditions: dict[str, xr.Dataset]
    cases: list[Case]
    messages: list[str] = field(default_factory=list)
    outside: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: {', '.join(map(str, data.data_vars))}" for name, data in self.conditions.items()]
        lines += [f"{len(self.cases)} cases", *self.messages]
        lines += [f"outside the training range in {label}: {'; '.join(what)}" for label, what in self.outside.items()]
        return "\n".join(lines)


def check_conditions(stages: Sequence[Stage], conditions: Conditions, cases: Cases = None) -> Check:
    """See `sciffusion.emulator.Emulator.check`."""
    wanted = {
        name: conditioner
        for stage in stages
        for name, conditioner in stage.conditioners.items()
        if conditioner.needs_data
    }
    given = _by_name(conditions, list(wanted))
    asked = dict(cases) if isinstance(cases, Mapping) else {}
    ready, messages = {}, []
    for name, conditioner in wanted.items():
        part = given[name] if conditioner.looks_back else _selected(given[name], asked)
        ready[name], notes = conditioner.accept(part)
        messages += notes
    labels = _left_over(asked, given.values(), ready.values())
    if cases is None or isinstance(cases, Mapping):
        ready = {name: data if wanted[name].looks_back else _selected(data, labels) for name, data in ready.items()}
        cases = _cases(wanted, {n: _selected(d, asked) if wanted[n].looks_back else d for n, d in ready.items()})
    found = [case for case in cases if all(wanted[name].serves(data, case) for name, data in ready.items())]
    if not found:
        raise SciffusionError("no case has the earlier states that it needs", "give data that begin earlier")
    outside = {}
    for case in found:
        notes = [n for name, data in ready.items() for n in wanted[name].outside(data, case)]
        if notes:
            outside[case.labels] = notes
    return Check(ready, found, messages, outside)


def _by_name(conditions: Conditions, wanted: list[str]) -> dict[str, xr.Dataset]:
    if isinstance(conditions, xr.Dataset):
        return dict.fromkeys(wanted, conditions)
    missing = [name for name in wanted if name not in conditions]
    if missing:
        raise SciffusionError(
            f"no data for the condition {missing[0]!r}", f"pass a mapping with {', '.join(map(repr, wanted))}"
        )
    return {name: conditions[name] for name in wanted}


def _cases(wanted: Mapping[str, Any], ready: Mapping[str, xr.Dataset]) -> list[Case]:
    """The cases of the conditions: those of the condition with the most case dims."""
    if not ready:
        return [Case()]
    found = [cases_of(data, wanted[name].core_dims) for name, data in ready.items()]
    return max(found, key=lambda cases: (len(cases[0].dims) if cases else 0, len(cases)))


def _left_over(
    labels: Mapping[str, Any], given: Collection[xr.Dataset], ready: Collection[xr.Dataset]
) -> dict[str, Any]:
    """Labels along dims that no data had when they were given, and that have this name in the terms of the model."""
    left = {dim: label for dim, label in labels.items() if not any(dim in data.dims for data in given)}
    for dim in left:
        if ready and not any(dim in data.dims for data in ready):
            known = sorted({str(name) for data in ready for name in data.dims})
            raise SciffusionError(f"cases along {dim!r}, which is no dim", f"the dims are {', '.join(known)}")
    return left


def _selected(data: xr.Dataset, cases: Mapping[str, Any]) -> xr.Dataset:
    """The cases asked for; dims that a condition does not have do not concern it."""
    mine = {dim: label for dim, label in cases.items() if dim in data.dims}
    # cases without labels are known by their place in the whole, which a selection must not renumber
    data = data.assign_coords({dim: np.arange(data.sizes[dim]) for dim in mine if dim not in data.coords})
    try:
        chosen = data.sel({dim: label if isinstance(label, (slice, list)) else [label] for dim, label in mine.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise SciffusionError(
            f"no such case: {error}", f"the data have {', '.join(map(str, mine))} of other values"
        ) from None
    for dim in mine:
        if chosen.sizes[dim] == 0:
            raise SciffusionError(
                f"no case in {dim} = {mine[dim]}", f"the data run from {data[dim].values[0]} to {data[dim].values[-1]}"
            )
    return chosen
