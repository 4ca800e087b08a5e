"""From surveyed data to an experiment: settings, a comment for each choice, and the findings to print."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sciffusion.cli import decisions
from sciffusion.cli.findings import CoarseFound, StaticFound, describe
from sciffusion.cli.readings import gaps, labels_of, sides_of, symmetric_latitude, time_step, train_count, window_of
from sciffusion.errors import SciffusionError
from sciffusion.fields.roles import FRAME, find_axis
from sciffusion.fields.survey import Survey

__all__ = ["Proposal", "propose"]


@dataclass
class Proposal:
    """Settings as plain data, comments by dotted path, and lines for the terminal."""

    settings: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def propose(
    fine: Survey,
    source: dict[str, Any],
    *,
    coarse: CoarseFound | None = None,
    static: StaticFound | None = None,
    factor: float = 4,
    spacing: dict[str, float] | None = None,
    output: str = "run",
) -> Proposal:
    """Put an experiment together from what was found of the target (``fine``) and the conditions."""
    made = Proposal()
    variables = [name for name in fine.layout.fields if not fine.facts[name].constant]
    if not variables:
        names = ", ".join(fine.layout.fields)
        raise SciffusionError(f"every field is constant in the samples looked at ({names})", "give --variables")
    made.settings = {"version": 1, "recipe": "edm", "output": output}
    if title := str(fine.ds.attrs.get("title", "")).strip():
        made.settings["title"] = title[:80]
    _target(made, fine, source, variables, spacing or {})
    ranges = _split(made, fine, coarse)
    window = window_of(fine)
    plan = _symmetries(fine, ranges, static is not None)
    _conditions(made, fine, variables, coarse, static, factor, plan)
    made.settings["split"] = made.settings.pop("split")  # after the conditions
    _stage(made, fine, variables, coarse, window, ranges)
    _train(made, fine, window, ranges, plan)
    made.findings = describe(made.settings, made.comments, fine, coarse)
    return made


def _target(
    made: Proposal, fine: Survey, source: dict[str, Any], names: Sequence[str], spacing: dict[str, float]
) -> None:
    layout = fine.layout
    variables: dict[str, Any] = {}
    for name in names:
        fact = fine.facts[name]
        variables[name], why = decisions.transform(fact)
        odd = decisions.odd_along(name, fact.standard_name, sides_of(fine), fine.geometry == "sphere")
        if odd:
            variables[name]["odd_along"] = odd
        made.comments[f"target.variables.{name}"] = "; ".join(filter(None, [fact.units, why, gaps(fact)]))
    target: dict[str, Any] = {"source": source, "variables": variables, "dims": list(layout.dims)}
    if layout.channel_dims:
        target["channel_dims"] = list(layout.channel_dims)
    if fine.geometry == "sphere":
        target["geometry"] = "sphere"
    if fine.periodic:
        target["periodic"] = list(fine.periodic)
        found = "closes the circle" if fine.geometry == "sphere" else "opposite edges fit together in the samples"
        made.comments["target.periodic"] = found
    bare = {dim: spacing.get(dim, 1.0) for dim in layout.dims if dim not in fine.ds.coords}
    if bare:
        target["spacing"] = bare
        made.comments["target.spacing"] = "dims without coordinates" + (
            "" if spacing else "; give --dx for real lengths"
        )
    made.settings["target"] = target


def _split(made: Proposal, fine: Survey, coarse: CoarseFound | None) -> list[tuple[int, int]]:
    """Split along time, else along the longest case dim, where the coarse data have entries; the ranges as counts."""
    case = fine.layout.case_dims
    time = find_axis(fine.ds, "time", case)
    dim = time or max(case, key=lambda name: fine.ds.sizes[name], default=None)
    places = np.arange(fine.ds.sizes[dim] if dim else 1)
    if coarse is not None and dim is not None:
        places = coarse.served.get(dim, places)
    count = places.size
    ranges, why = decisions.split(count, gap=decisions.gap(count, time_step(fine)[0]) if time else 0)
    labels = labels_of(fine.ds, dim)
    entries = {
        key: [[labels(int(places[first])), labels(int(places[last]))]]
        for key, (first, last) in zip(
            ("train", "validation", "test") if len(ranges) != 2 else ("train", "test"), ranges, strict=False
        )
    }
    made.settings["split"] = {"dim": dim if count > 1 else None, **entries}
    made.comments["split"] = why
    return ranges


def _symmetries(fine: Survey, ranges: list[tuple[int, int]], static: bool) -> dict[str, Any]:
    """Clocks, rolls and mirrors. A mirrored year is another season, so mirrors go without a day of the year."""
    dims, few = fine.layout.dims, train_count(fine, ranges) < 1000
    step, span = time_step(fine)
    clocks = decisions.calendar(step, span, fine.geometry == "sphere")
    world = fine.geometry == "sphere" and bool(fine.periodic)
    roll = list(fine.periodic) if few and not (fine.masked and not world) else []
    mirror = (
        [dim for dim in dims if symmetric_latitude(fine.ds, dim)]
        if world and few and "day_of_year" not in clocks
        else []
    )
    return {"clocks": clocks, "roll": roll, "mirror": mirror, "world": world}


def _conditions(
    made: Proposal,
    fine: Survey,
    variables: list[str],
    coarse: CoarseFound | None,
    static: StaticFound | None,
    factor: float,
    plan: dict[str, Any],
) -> None:
    conditions: dict[str, Any] = {}
    if coarse is None:
        inner = {dim: factor for dim in fine.layout.dims if dim != FRAME}  # frames of a window are not coarsened
        own: Any = inner if FRAME in fine.layout.dims else factor
        conditions["coarse"] = {"kind": "coarse", "variables": variables, "factor": own}
        made.comments["conditions.coarse"] = "no coarse files given: the target's own conservative coarsening"
    else:
        entry = {"kind": "coarse", "source": coarse.source, "variables": coarse.variables}
        conditions["coarse"] = entry | ({"align": coarse.align} if coarse.align != "exact" else {})
        ratio = ", ".join(f"{value:g} along {dim}" for dim, value in coarse.factor.items())
        made.comments["conditions.coarse"] = f"coarser by {ratio}"
    if static is not None:
        conditions["static"] = {"kind": "static", "source": static.source, "variables": static.variables}
    made.settings["conditions"] = conditions | _place_and_time(made, fine, plan)


def _place_and_time(made: Proposal, fine: Survey, plan: dict[str, Any]) -> dict[str, Any]:
    """Position and calendar: latitudes on the sphere, places of training windows, clocks of the times."""
    conditions: dict[str, Any] = {}
    cropped = bool(decisions.crop(fine.shape, fine.layout.dims))
    if fine.geometry == "sphere":
        conditions["position"] = {"kind": "position", "features": ["latitude"]}
    elif cropped and not set(fine.layout.dims) <= set(fine.periodic):
        conditions["position"] = {"kind": "position", "features": ["fourier"]}
        made.comments["conditions.position"] = "tells a training window where it lies"
    if plan["clocks"]:
        dim = find_axis(fine.ds, "time", fine.layout.case_dims)
        other = {"dim": dim} if dim != "time" else {}
        conditions["calendar"] = {"kind": "calendar", "features": plan["clocks"]} | other
    return conditions


def _stage(
    made: Proposal,
    fine: Survey,
    variables: list[str],
    coarse: CoarseFound | None,
    window: tuple[int, ...],
    ranges: list[tuple[int, int]],
) -> None:
    network, why = decisions.network(window, train_count(fine, ranges))
    covered = [name for name in variables if coarse is None or name in coarse.variables]
    constraint, reason = _constraint(made, coarse, covered)
    stage = {
        "name": "denoiser",
        "baseline": "coarse" if covered else None,
        "constraint": constraint,
        "network": network,
    }
    made.settings["stages"] = [stage]
    rest = [name for name in variables if name not in covered]
    made.comments["stages.0.baseline"] = (
        "the interpolated coarse field is subtracted" + (f" (there is none of {', '.join(rest)})" if rest else "")
        if covered
        else "the coarse data have none of the target variables"
    )
    made.comments["stages.0.constraint"] = reason
    made.comments["stages.0.network"] = why


def _constraint(made: Proposal, coarse: CoarseFound | None, covered: list[str]) -> tuple[str | None, str]:
    """Members reproduce the coarse field only where coarse = C(fine) was verified and the transform is affine."""
    if not covered:
        return None, "the coarse data have none of the target variables"
    if coarse is not None and not coarse.consistency.exact:
        if not coarse.consistency.difference:
            return None, "coarse could not be compared with C(fine)"
        worst = max(coarse.consistency.difference.values())
        return None, f"coarse is not C(fine): they differ by up to {worst:.2g} sd, which members should not inherit"
    curved = [name for name in covered if "transform" in made.settings["target"]["variables"][name]]
    if len(curved) == len(covered):
        return None, f"{', '.join(curved)}: not affine, cannot be projected"
    checked = "by construction" if coarse is None else f"verified on {coarse.consistency.cases} cases"
    but = f" (but {', '.join(curved)}: not affine)" if curved else ""
    return "coarse", f"coarse = C(fine) {checked}: members reproduce it{but}"


def _train(
    made: Proposal, fine: Survey, window: tuple[int, ...], ranges: list[tuple[int, int]], plan: dict[str, Any]
) -> None:
    count = train_count(fine, ranges)
    augmented = bool(plan["roll"] or plan["mirror"])
    train: dict[str, Any] = dict(decisions.training(fine.shape, window, count, augmented))
    cropped = decisions.crop(fine.shape, fine.layout.dims)
    if cropped:
        train["crop"] = cropped
        made.comments["train.crop"] = f"random windows of the {' x '.join(map(str, fine.shape))} grid, read lazily"
    if augmented:
        train["augment"] = {key: plan[key] for key in ("roll", "mirror") if plan[key]}
        kind = "mirrored at the equator the dynamics are the same" if plan["mirror"] else "shifts along periodic dims"
        made.comments["train.augment"] = f"{kind}; remove what your physics does not share"
    made.settings["train"] = train
    made.comments["train.steps"] = "on a CPU try --set train.steps=200 first"
