"""The family table as a page: what was run and how, tables, pictures, and what is missing and why."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from families_pictures import draw_fields, draw_spectra
from families_problems import OTHERS
from families_table import Entry, best_yardstick, grouped, log_power, read, table
from families_verdict import judgement

from sciffusion import recipes
from sciffusion.datasets.simulators import PROBLEMS

__all__ = ["write_page"]

WIDTH = 118

INTRODUCTION = """\
# The family table

Every [recipe](recipes.md) trained on the same simulated data with the same time on the same kind of device, and judged
by the same scores, beside the exact answer where there is one. The problems are those of [problems](problems.md).

A row has its GPU to itself while it trains and samples; reading data, compiling and scoring are not counted. Stages of
a recipe share its time in equal parts. A distilled one starts from the `edm` of the same table, whose time comes before
its own{shorter}.
Nothing is tuned to a problem: networks, rates and samplers are the recipes' own, batches of as many cells as 128 fields
of 64 x 64, bfloat16, compiled but for regressions; the learning rate falls to a hundredth within the time. Simulated
data are plentiful: no dropout, and the last average is kept. Of ERA5 and the GCM it is the one with the lowest
validation loss; their dropout and symmetries, and the networks of ERA5's week, are those of their own experiments. No
denoiser is analytic.

- CRPS ratio: fair CRPS over that of the yardstick on the same truths. This is the exact posterior where it is known,
  whose CRPS is computed in closed form: 1 is perfect. Elsewhere it is the linear-Gaussian regression on coarse cells,
  the best of those that are fitted in the recipes' units.
- RALSD: rms over half octaves, up to 0.8 of Nyquist, of the log ratio of the members' power to the truths'
  ([scores](scores.md)); log-power rms: over single shells of wavenumber up to Nyquist, in natural logarithms.
- coarse rms: how far the members' block means are from the coarse input, in units of its sd. Members of simulated
  problems and of `era5-tp` are not projected onto it, those of `era5` and `gcm-window` are.
- calls: network calls per member; ms/member: with {members} members of {cases} cases (a quarter of them where a member
  takes hundreds of calls) drawn in large batches.

`latent-text` is told the truth's mean and variability in words ("high phi with weak variability"), which says more than
the coarse field does. Its tokens were made where the text encoder is installed and carried to the GPU in the cache.

Aims where the exact answer is known: `edm`, `dit`, `flow` and `corrdiff` within 2 % of its CRPS, spread/skill from 0.97
to 1.03, log-power rms below 0.05; distilled ones within 3 % of the teacher's CRPS and spread/skill and 0.2 dB of its
RALSD; every other family within 10 % of the CRPS, which says nothing of its spectra. Elsewhere: RALSD of the diffusion
families below that of the one-step `crps`. Precipitation: the area with 0.1 mm or more within 5 % of the truths', the
99.9 % quantile within 10 %, nothing negative.
"""
NOT_FOR = {
    "forecast": "needs the state before: for sequences in time",
    "window": "needs windows of several times: a grid axis more",
    "precipitation": "is `edm` where no variable has zeros",
}
ONLY = {"gcm": ("forecast",), "gcm-window": ("window",), "era5-tp": ("precipitation", "edm", "crps")}


def write_page(results: Path, docs: Path) -> None:
    """Write ``docs``/families.md and its pictures from the rows in ``results``. Raises where there are none."""
    entries = read(results)
    if not entries:
        raise FileNotFoundError(f"no rows in {results}: make some first")
    (docs / "images").mkdir(parents=True, exist_ok=True)
    facts = {key: max(entry[key] for entry in entries) for key in ("members", "cases")}
    parts = [INTRODUCTION.format(**facts, shorter=shorter(entries))]
    for problem in dict.fromkeys(entry["problem"] for entry in entries):
        mine = [entry for entry in entries if entry["problem"] == problem]
        parts += section(problem, mine, results, docs)
    (docs / "families.md").write_text("\n".join(parts).rstrip() + "\n")


def shorter(entries: Sequence[Entry]) -> str:
    """Which rows were made when distilled ones had a quarter of the time, as ends of a sentence."""
    names = dict.fromkeys(f"`{one['recipe']}`" for one in entries if one["training_minutes"] < one["minutes"] / 2)
    return f"; {', '.join(names)} of this page had a quarter of the time" if names else ""


def section(problem: str, entries: Sequence[Entry], results: Path, docs: Path) -> list[str]:
    """Heading, command, table, judgement, pictures, what is missing."""
    groups, one = grouped(entries), entries[0]
    summary = PROBLEMS[problem].summary if problem in PROBLEMS else OTHERS[problem]
    names, minutes = ",".join(groups), max(entry["minutes"] for entry in entries)
    lines = [f"## {problem}", "", sentence(f"{summary}. {origin(entries)}"), ""]
    lines += ["<!-- run: not -->", "```console"]
    lines += [
        f"$ python benchmarks/families.py --problem {problem} --recipes {names} --minutes {minutes:g} --jobs 4",
        "```",
    ]
    lines += ["", *table(entries), "", sentence(yardstick_text(entries)), ""]
    lines += [*map(sentence, remarks), ""] if (remarks := noted(entries)) else []
    lines += [*map(sentence, verdict), ""] if any(verdict := judgement(problem, groups)) else []
    lines += [f"![Fields of one case on {problem}](images/families-{problem}.png)", ""]
    draw_fields(groups, results, docs / "images" / f"families-{problem}.png")
    draw_spectra(groups, docs / "images" / f"families-{problem}-spectra.png")
    lines += [
        f"![Power of the members over that of the truths on {problem}](images/families-{problem}-spectra.png)",
        "",
    ]
    return [*lines, sentence(f"Trained on {learned(one)}. {missing(problem, groups, results)}"), ""]


def noted(entries: Sequence[Entry]) -> list[str]:
    """What is to be known of rows, each remark once."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        for remark in entry.get("remarks", []):
            names.setdefault(remark, []).append(f"`{entry['recipe']}`")
    return [f"- {', '.join(those)}: {remark}" for remark, those in names.items()]


def sentence(text: str) -> str:
    """In lines; those of a list's item are indented."""
    indent = "  " if text.startswith("- ") else ""
    how = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": indent}
    return textwrap.fill(" ".join(text.split()), WIDTH, **how)


def origin(entries: Sequence[Entry]) -> str:
    """Devices, with the recipes on each where there are several, dates and commits."""
    date, commit = (", ".join(sorted({str(entry[key]) for entry in entries})) for key in ("date", "commit"))
    rows: dict[str, list[str]] = {}
    for entry in sorted(entries, key=lambda entry: (entry["recipe"], entry["seed"])):
        seed = f" (seed {entry['seed']})" if entry["seed"] else ""
        rows.setdefault(entry["device"], []).append(f"`{entry['recipe']}`{seed}")
    several = len(rows) > 1
    devices = "; ".join(f"{device}{': ' + ', '.join(names) if several else ''}" for device, names in rows.items())
    return f"{devices}; {date}; commit {commit}; raw numbers in `benchmarks/results/families`."


def yardstick_text(entries: Sequence[Entry]) -> str:
    problem = entries[0]["problem"]
    kind = "the exact posterior" if problem.startswith("grf") else "the linear-Gaussian regression"
    kind = "persistence with Gaussian errors" if problem == "gcm" else kind
    one = best_yardstick(problem, entries)
    return (
        f"{one['members']} draws of the yardstick, {kind}, have a CRPS of {one['yardstick_crps']:.4g}{closed(one)},"
        f" spread/skill {one['yardstick_spread_skill']:.3f}, RALSD {one['yardstick_ralsd']:.2f} dB and log-power rms"
        f" {log_power(one, 'yardstick'):.3f} on these cases{': chance alone' if problem.startswith('grf') else ''}."
        f" Resampling the cases moves a CRPS over that of the draws by ±{chance(entries):.3f} (half of a 95 % interval,"
        " the median of the rows)."
    )


def closed(entry: Entry) -> str:
    exact = entry.get("exact_crps")
    return "" if exact is None else f" (expected {exact:.4g})"


def chance(entries: Sequence[Entry]) -> float:
    """Median half-width of the intervals of the CRPS ratio, (low, high) per variable."""
    ends = [np.reshape(entry["crps_ratio_interval"], (-1, 2)) for entry in entries]
    return float(np.median([np.mean(np.diff(pair)) / 2 for pair in ends]))


def learned(entry: Entry) -> str:
    """What there was to learn from."""
    found, count = PROBLEMS.get(entry["problem"]), entry["training_cases"]
    return f"{count} trajectories of {found.frames} fields" if found and found.frames else f"{count} cases"


def missing(problem: str, groups: dict[str, list[Entry]], results: Path) -> str:
    """The recipes without a row, and why."""
    reasons = {}
    for path in sorted((results / "failed").glob(f"{problem}-*.json")):
        failure = json.loads(path.read_text())
        reasons[failure["recipe"]] = f"failed on {failure['date']} ({failure['why']})"
    why: dict[str, list[str]] = {}
    for name in ONLY.get(problem, recipes.names()):
        if name not in groups:
            why.setdefault(reasons.get(name) or NOT_FOR.get(name) or "not run yet", []).append(f"`{name}`")
    if not why:
        return "Every recipe that suits has a row."
    return "Missing: " + "; ".join(f"{', '.join(names)}: {reason}" for reason, names in why.items()) + "."
