"""What a run is to make: which cases in the order of the store, which members, and how their noise hangs together."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Self

import xarray as xr

from sciffusion.emulator import Emulator, member_numbers
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, encode_label
from sciffusion.fields.coherence import Coherence
from sciffusion.stages.conditions import Cases, Check, Conditions

__all__ = ["Plan"]

log = logging.getLogger("sciffusion")


@dataclass(frozen=True)
class Plan:
    """The cases of ``check`` are in the store's order, which is C order over ``dims``; an item is a case and a member.

    ``template`` is the ensemble without its members; ``coherence`` the law of the noise over the cases, None where it
    is independent.
    """

    check: Check
    template: xr.Dataset
    dims: tuple[str, ...]
    members: list[int]
    coherence: Coherence | None = None

    @classmethod
    def of(
        cls,
        emulator: Emulator,
        conditions: Conditions,
        members: int | Sequence[int],
        cases: Cases,
        time_coherence: str | float | None,
    ) -> Self:
        """Look through the conditions and say what is remarkable. Raises SciffusionError for what cannot be made."""
        check = emulator.check(conditions, cases)
        _report(check)
        template, dims = emulator.template(check), check.cases[0].dims
        plan = cls(_ordered(check, template, dims), template, dims, member_numbers(members))
        return plan if time_coherence is None else plan._coherent(str(time_coherence), conditions)

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self.check.cases) * len(self.members)

    def _coherent(self, asked: str, conditions: Conditions) -> Self:
        """With noise as ``asked`` for, in steps of all conditions given, not only of the cases chosen."""
        given = [conditions] if isinstance(conditions, xr.Dataset) else list(conditions.values())
        coherence = Coherence.parse(asked, self.check.cases, [*given, *self.check.conditions.values()])
        log.info("time coherence: %s", coherence)
        check = replace(self.check, cases=[coherence.applied(case) for case in self.check.cases])
        template = self.template.assign_attrs(time_coherence=str(coherence))
        return replace(self, check=check, template=template, coherence=coherence)


def _ordered(check: Check, template: xr.Dataset, dims: Sequence[str]) -> Check:
    columns = [{encode_label(value): i for i, value in enumerate(template[dim].values)} for dim in dims]

    def place(case: Case) -> tuple[int, ...]:
        return tuple(column[label] for column, label in zip(columns, case.labels, strict=True))

    if len(check.cases) != prod(map(len, columns)):
        what = f"{len(check.cases)} cases do not fill {' x '.join(f'{template.sizes[dim]} {dim}' for dim in dims)}"
        raise SciffusionError(what, "choose all combinations of labels, or generate one store for each")
    return replace(check, cases=sorted(check.cases, key=place))


def _report(check: Check) -> None:
    """Say what the dry run found."""
    for message in check.messages:
        log.info(message)
    flagged = list(check.outside.items())
    for labels, what in flagged[:5]:
        log.warning("outside the training range in %s: %s", ", ".join(map(str, labels)), "; ".join(what))
    if len(flagged) > 5:
        log.warning("outside the training range in %d more cases", len(flagged) - 5)
