"""The figures of a report, section by section: which are drawn, of which variable and ensemble, and which are not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xarray as xr

from sciffusion.evaluation.measures.indices import INDICES
from sciffusion.evaluation.report.figures import Drawing, styled
from sciffusion.evaluation.report.maps import RARE, SHARED, case_maps, climate_maps, mean_maps
from sciffusion.evaluation.report.section import Plot, Section

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["Shown", "climate_maps_of", "figures_of", "left_out", "maps_of", "scores_of"]


@dataclass(frozen=True)
class Shown:
    """One figure: of which variable, which plot (``name`` for a file), under which caption."""

    variable: str
    name: str
    drawing: Drawing
    caption: str = ""


def scores_of(evaluation: "Evaluation") -> dict[str, xr.Dataset]:
    """Scores by ensemble; every system keeps the colour that it has in the first."""
    order = [str(name) for name in evaluation.scores["system"].values]
    return {name: one.scores.assign_attrs(order=order) for name, one in evaluation.side_by_side.items()}


def figures_of(evaluation: "Evaluation", section: Section, variable: str) -> Iterator[Shown]:
    """All figures of one variable that are possible."""
    for plot in section.plots:
        for name, one in _scores_for(evaluation, plot, variable):
            with styled():
                drawn = plot.draw(one) if plot.possible(one) else []
            owner = name if plot.each and evaluation.others else ""
            for index, drawing in enumerate(drawn):
                if owner:
                    drawing.add_to_title(owner)
                parts = (plot.name, owner, str(index) if len(drawn) > 1 else "")
                yield Shown(variable, "_".join(filter(None, parts)), drawing, plot.caption)


def _scores_for(evaluation: "Evaluation", plot: Plot, variable: str) -> Iterator[tuple[str, xr.Dataset]]:
    """The scores of one variable as the first ensemble's, or as every ensemble's."""
    for index, (name, scores) in enumerate(scores_of(evaluation).items()):
        if (plot.each or index == 0) and variable in scores["variable"].values:
            yield name, scores.sel(variable=variable)


def left_out(evaluation: "Evaluation", section: Section) -> dict[str, list[str]]:
    """Plots that no variable has the numbers for, by the reason."""
    scores, found = scores_of(evaluation)[evaluation.name], dict[str, list[str]]()
    brief = "a brief evaluation leaves it out" if scores.attrs["extent"] != "everything" else ""
    for plot in section.plots:
        if not any(plot.possible(scores.sel(variable=name)) for name in scores["variable"].values):
            found.setdefault(brief or plot.otherwise, []).append(plot.name.replace("_", " "))
    for heading, name in section.columns:
        if name not in scores or not scores[name].notnull().any():
            found.setdefault(brief or section.otherwise, []).append(heading.strip())
    return found


def maps_of(evaluation: "Evaluation", variable: str) -> Iterator[tuple[str, list[Shown]]]:
    """Pictures of one case by ensemble; what they share stands with the first."""
    for index, (name, one) in enumerate(evaluation.side_by_side.items()):
        if f"{variable}/truth" not in one.maps:
            continue
        units = str(one.scores["units"].sel(variable=variable).item())
        with styled():
            drawn = case_maps(one.maps, variable, units, shared=index == 0) | mean_maps(one.maps, variable, units)
        shown = []
        for words, drawing in drawn.items():
            owner = name if evaluation.others and words not in SHARED else ""
            shown.append(Shown(variable, "_".join(filter(None, ("map", owner, words))), drawing))
        yield name, shown


def climate_maps_of(evaluation: "Evaluation", variable: str) -> Iterator[Shown]:
    """Maps of whole years, what the ensembles share first."""
    for name, units in _yearly_units(evaluation.scores, variable).items():
        for index, (owner, one) in enumerate(evaluation.side_by_side.items()):
            whose = owner if evaluation.others else "members"
            with styled():
                drawn = climate_maps(one.maps, variable, name, units, whose, shared=index == 0)
            for words, drawing in drawn.items():
                yield Shown(variable, f"climate_{words}", drawing)


def _yearly_units(scores: xr.Dataset, variable: str) -> dict[str, str]:
    """Of indices and rare values that may have maps."""
    if "climate_index_units" not in scores:
        return {}
    known = scores["climate_index_units"].sel(variable=variable)
    units = {name: str(known.sel(climate_index=name).item()) for name in INDICES}
    return units | dict.fromkeys(RARE, str(scores["units"].sel(variable=variable).item()))
