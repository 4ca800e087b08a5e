"""The family table as a page: what was run and how, tables, pictures, and what is missing and why."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from families_problems import OTHERS
from families_table import Entry, grouped, log_power, read, table
from families_verdict import judgement
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from sciffusion import recipes
from sciffusion.datasets.simulators import PROBLEMS

__all__ = ["write_page"]

WIDTH = 118
COLOURS = "RdBu_r"

INTRODUCTION = """\
# The family table

Every [recipe](recipes.md) trained on the same simulated data with the same time on the same kind of device, and judged
by the same scores, beside the exact answer where there is one. The problems are those of [problems](problems.md).

A row has its GPU to itself while it trains and samples; reading data, compiling and scoring are not counted. Stages of
a recipe share its time in equal parts, a distilled one has a quarter of it and starts from the `edm` of the same table.
Nothing is tuned to a problem: networks, rates and samplers are the recipes' own, batches of as many cells as 128 fields
of 64 x 64, bfloat16, compiled but for regressions, no dropout where data are simulated; the learning rate falls to a
hundredth within the time. No denoiser is analytic. On the week of ERA5 networks and symmetries are those of its own
experiment.

- CRPS ratio: fair CRPS over that of the yardstick on the same truths. This is the exact posterior where it is known,
  whose CRPS is computed in closed form: 1 is perfect. Elsewhere it is the linear-Gaussian regression on coarse cells.
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
    parts = [INTRODUCTION.format(**facts)]
    for problem in dict.fromkeys(entry["problem"] for entry in entries):
        mine = [entry for entry in entries if entry["problem"] == problem]
        parts += section(problem, mine, results, docs)
    (docs / "families.md").write_text("\n".join(parts).rstrip() + "\n")


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
    remarks = [f"- `{entry['recipe']}`: {remark}" for entry in entries for remark in entry.get("remarks", [])]
    lines += [*remarks, ""] if remarks else []
    lines += [*judgement(problem, groups), ""]
    lines += [f"![Fields of one case on {problem}](images/families-{problem}.png)", ""]
    draw_fields(groups, results, docs / "images" / f"families-{problem}.png")
    draw_spectra(groups, docs / "images" / f"families-{problem}-spectra.png")
    lines += [
        f"![Power of the members over that of the truths on {problem}](images/families-{problem}-spectra.png)",
        "",
    ]
    return [*lines, sentence(f"Trained on {learned(one)}. {missing(problem, groups, results)}"), ""]


def sentence(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def origin(entries: Sequence[Entry]) -> str:
    """Devices, dates and commits."""
    found = {key: ", ".join(sorted({str(entry[key]) for entry in entries})) for key in ("device", "date", "commit")}
    return (
        f"{found['device']}; {found['date']}; commit {found['commit']}; raw numbers in `benchmarks/results/families`."
    )


def yardstick_text(entries: Sequence[Entry]) -> str:
    problem = entries[0]["problem"]
    kind = "the exact posterior" if problem.startswith("grf") else "the linear-Gaussian regression"
    kind = "persistence with Gaussian errors" if problem == "gcm" else kind
    one = entries[0]
    return (
        f"{one['members']} draws of the yardstick, {kind}, have a CRPS of {one['yardstick_crps']:.4f}{closed(one)},"
        f" spread/skill {one['yardstick_spread_skill']:.3f}, RALSD {one['yardstick_ralsd']:.2f} dB and log-power rms"
        f" {log_power(one, 'yardstick'):.3f} on these cases{': chance alone' if problem.startswith('grf') else ''}."
        f" Resampling the cases moves a CRPS over that of the draws by ±{chance(entries):.3f} (half of a 95 % interval,"
        " on average over rows)."
    )


def closed(entry: Entry) -> str:
    exact = entry.get("exact_crps")
    return "" if exact is None else f" (expected {exact:.4f})"


def chance(entries: Sequence[Entry]) -> float:
    """Mean half-width of the intervals of the CRPS ratio, (low, high) per variable."""
    ends = [np.reshape(entry["crps_ratio_interval"], (-1, 2)) for entry in entries]
    return float(np.mean([np.diff(pair) / 2 for pair in ends]))


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


# --- pictures


def draw_fields(groups: dict[str, list[Entry]], results: Path, path: Path) -> None:
    """A strip per recipe: coarse input, truth and two members of one case."""
    shown = {name: results / f"{problem_row(entries[0])}.nc" for name, entries in groups.items()}
    shown = {name: file for name, file in shown.items() if file.is_file()}
    titles = ("coarse input", "truth", "member 1", "member 2")
    figure, axes = plt.subplots(
        len(shown), len(titles), figsize=(8, 2 * len(shown) + 0.3), layout="constrained", squeeze=False
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for row, (name, file) in zip(axes, shown.items(), strict=True):
        with xr.open_dataset(file) as ds:
            fields = {"truth": ds["truth"], "coarse input": ds.get("coarse")}
            fields |= {f"member {i + 1}": ds["member"].isel(member=i) for i in range(ds.sizes["member"])}
            limit = float(abs(ds["truth"] - ds["truth"].mean()).max())
            middle = float(ds["truth"].mean())
            for axis, title in zip(row, titles, strict=True):
                field(axis, fields.get(title), middle - limit, middle + limit)
        row[0].set_ylabel(name, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def problem_row(entry: Entry) -> str:
    return f"{entry['problem']}-{entry['recipe']}-{entry['seed']}"


def field(axis: Axes, values: xr.DataArray | None, low: float, high: float) -> None:
    axis.set(xticks=[], yticks=[])
    if values is None:
        axis.set_visible(False)
        return
    values = values.squeeze()
    plane = values.values if values.ndim == 2 else np.repeat(values.values[None], 16, axis=0)
    axis.imshow(plane, origin="lower", cmap=COLOURS, vmin=low, vmax=high, interpolation="nearest")


def draw_spectra(groups: dict[str, list[Entry]], path: Path) -> None:
    """Power of members and yardstick over the truths', by wavenumber."""
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    colours = plt.get_cmap("tab10" if len(groups) <= 10 else "tab20")
    for number, (name, entries) in enumerate(groups.items()):
        spectra = entries[0]["spectra"]
        ratio = np.divide(spectra["members"], spectra["truth"])
        axis.semilogx(spectra["wavenumber"], ratio, color=colours(number), label=name, lw=1.6)
    spectra = next(iter(groups.values()))[0]["spectra"]
    axis.semilogx(spectra["wavenumber"], np.divide(spectra["yardstick"], spectra["truth"]), "k:", label="yardstick")
    low, high = spectra["wavenumber"][0] * 0.99, spectra["wavenumber"][-1]
    axis.axhspan(0.95, 1.05, color="0.92", zorder=0)
    axis.axhline(1, color="0.6", lw=0.8, zorder=0)
    axis.set(xlabel="wavenumber (cycles per unit of length)", ylabel="power of members / of truths", ylim=(0.4, 1.6))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks([2**power for power in range(12) if low <= 2**power <= high])
    axis.legend(ncols=5, fontsize=8, loc="lower left", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
