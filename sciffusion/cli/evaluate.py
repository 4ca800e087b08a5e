"""``sciffusion evaluate``: judge any ensemble against a reference, and write the report."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.errors import SciffusionError

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation
    from sciffusion.evaluation.settings import EvaluationSettings

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "score ensembles against the truth, beside baselines, and write a report"
EXAMPLE = "sciffusion evaluate ens.zarr --reference fine.zarr --baselines linear=lin.zarr --report report.html"
RENAMED = ("reference", "coarse", "training")
PLAIN = ("variables", "dims", "periodic", "member", "estimator", "window", "block", "force_indices", "partial")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what is not given is taken from --config, or left at its default."""
    parser.add_argument(
        "ensembles", nargs="*", metavar="[NAME=]PATH", help="ensembles to judge, side by side: NetCDF or Zarr"
    )
    parser.add_argument(
        "--reference", action="extend", nargs="+", metavar="PATH", help="the truth: files, globs or a store"
    )
    parser.add_argument(
        "--coarse", action="extend", nargs="+", metavar="PATH", help="coarse input, to check that members agree with it"
    )
    parser.add_argument(
        "--training",
        action="extend",
        nargs="+",
        metavar="PATH",
        help="training data: its cases are scored apart, as IN-SAMPLE",
    )
    parser.add_argument(
        "--baselines", action="extend", nargs="+", metavar="NAME=PATH", help="ensembles to compare with"
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings and data of an earlier evaluation")
    parser.add_argument(
        "--rename",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=OTHER",
        help="names in the reference, coarse and training data -> names in the ensemble",
    )
    _add_settings(parser)
    _add_resources(parser)
    parser.add_argument("--report", metavar="FILE.html", help="write the report, and FILE.yaml that makes it again")
    parser.add_argument("--figures", metavar="FOLDER", help="write the report's figures as SVG and PNG")
    parser.add_argument("--json", metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--netcdf", metavar="FILE", help="write all numbers as NetCDF")
    parser.add_argument("--overwrite", action="store_true", help="replace what stands under these names")
    parser.add_argument("--no-hashes", action="store_true", help="do not take SHA-256 fingerprints of the data")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """How to judge."""
    parser.add_argument(
        "--variables",
        action="extend",
        nargs="+",
        metavar="NAME",
        help="variables to score (default: all of the ensemble)",
    )
    parser.add_argument(
        "--dims", action="extend", nargs="+", metavar="DIM", help="grid dims, where coordinates do not tell"
    )
    parser.add_argument("--periodic", action="extend", nargs="*", metavar="DIM", help="grid dims that wrap around")
    parser.add_argument("--member", metavar="DIM", help="the ensemble dim, where its name does not tell")
    parser.add_argument("--estimator", choices=("fair", "standard", "almost fair"), help="of the CRPS (fair)")
    parser.add_argument("--window", choices=("hann", "dct"), help="for spectra of open domains (hann)")
    parser.add_argument(
        "--block", type=int, metavar="N", help="consecutive cases that hang together (default: estimated)"
    )
    parser.add_argument(
        "--force-indices",
        action="store_true",
        default=None,
        help="runs of dry and wet days also of members that are not trajectories",
    )
    parser.add_argument(
        "--partial", action="store_true", default=None, help="accept ensemble stores that are not complete"
    )


def _add_resources(parser: argparse.ArgumentParser) -> None:
    """How much of the machine to take; no number depends on it."""
    parser.add_argument("--memory", metavar="SIZE", help="of the members of one case and process, such as 2GB")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="that judge cases at a time (1)")
    parser.add_argument("--part", metavar="I/N", help="judge the I-th (from 0) of N parts, to be joined by --state")
    parser.add_argument(
        "--state",
        nargs="+",
        metavar="FILE",
        help="keep the sums there: an interrupted evaluation goes on from it; several files are joined into the first",
    )
    parser.add_argument("--backend", default="numpy", choices=("numpy", "torch"), help="what computes (numpy)")
    parser.add_argument("--device", help="of torch: cpu, cuda, ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the scorecard, write what was asked for."""
    from sciffusion.cli.logs import log_to
    from sciffusion.evaluation.files import evaluate_files
    from sciffusion.evaluation.settings import fingerprinted
    from sciffusion.fields.fingerprint import fingerprint

    _check_outputs(args)
    options = _resources(args)
    settings = _settings(args)
    log_to()
    hashed = not args.no_hashes and bool(args.config or args.report or args.json)
    expected = bool(settings.hashes)
    if hashed and expected:  # other data are refused first; otherwise reading all data once more can wait
        settings = fingerprinted(settings, fingerprint)
    shown = _Shown(not args.quiet)
    evaluation = evaluate_files(settings, progress=shown, **options)
    shown.close()
    if hashed and not expected:
        settings = fingerprinted(settings, fingerprint)
    evaluation = replace(evaluation, data=settings.hashes)
    written = _write(evaluation, settings, args)  # before anything is printed, which `| head` may cut short
    print(f"\n{evaluation.summary()}")
    for path in written:
        print(f"wrote {path}")
    return 0


def _resources(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `evaluate` that change no number."""
    options = {name: getattr(args, name) for name in ("memory", "processes", "backend", "device", "state")}
    if args.processes < 1:
        raise SciffusionError(f"--processes {args.processes}", "give a number of 1 or more")
    if args.part is None:
        return options
    index, _, count = args.part.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise SciffusionError(f"--part {args.part}", "write I/N with I from 0 to N - 1, for example 0/4")
    return options | {"part": (int(index), int(count))}


class _Shown:
    """Progress for the eye: a bar on a terminal, log lines otherwise."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Any = None

    def __call__(self, label: str, done: int, total: int) -> None:
        from sciffusion.generation.progress import Progress

        if self.bar is None:
            self.bar = Progress(total, done, show=self.show, words="evaluating", unit="case")
        self.bar.update(done - self.bar.done)

    def close(self) -> None:
        """All cases are done."""
        if self.bar is not None:
            self.bar.update(self.bar.total - self.bar.done)
            self.bar.close()


def _settings(args: argparse.Namespace) -> "EvaluationSettings":
    """Of --config, with what the command line gives in its place."""
    from sciffusion.evaluation.settings import load_settings, validated

    entries = load_settings(args.config) if args.config else {}
    rename = _pairs(args.rename, "--rename")
    given = {name: {"paths": getattr(args, name), "rename": rename} for name in RENAMED if getattr(args, name)}
    if args.ensembles:
        given["ensembles"] = {name: {"paths": [path]} for name, path in _named(args.ensembles).items()}
    if args.baselines:
        baselines = _pairs(args.baselines, "--baselines")
        given["baselines"] = {name: {"paths": [path]} for name, path in baselines.items()}
    given |= {name: getattr(args, name) for name in PLAIN if getattr(args, name) is not None}
    for name, words in (("ensembles", "an ensemble"), ("reference", "--reference")):
        if name not in entries | given:
            raise SciffusionError(f"evaluate needs {words}", f"for example: {EXAMPLE}")
    return validated(entries | given, args.config or "evaluate")


def _named(texts: list[str]) -> dict[str, str]:
    """Names and paths of the ensembles: as given, else the file's name; a single one is called ensemble."""
    named: dict[str, str] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or Path(text).exists():
            name, path = ("ensemble" if len(texts) == 1 else Path(text).stem), text
        if name in named:
            raise SciffusionError(f"two ensembles are called {name!r}", "write NAME=PATH to tell them apart")
        named[name] = path
    return named


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before any work, outputs that cannot be written, and to replace any unless --overwrite."""
    for path in (args.report, args.json, args.netcdf, args.figures, *(args.state or [])):
        if path and not Path(path).absolute().parent.is_dir():
            raise SciffusionError(f"{path}: the folder {Path(path).parent} does not exist", "make it first")
    if args.report and Path(args.report).suffix not in (".html", ".htm"):
        raise SciffusionError(f"--report {args.report}: not a name of an HTML file", "write FILE.html")
    beside = [Path(args.report).with_suffix(".yaml")] if args.report else []
    written = [Path(path) for path in (args.report, args.json, args.netcdf, args.figures) if path] + beside
    there = [path for path in written if (any(path.iterdir()) if path.is_dir() else path.exists())]
    if there and not args.overwrite:
        raise SciffusionError(f"{there[0]} exists", "give another name, or --overwrite")


def _write(evaluation: "Evaluation", settings: "EvaluationSettings", args: argparse.Namespace) -> list[str]:
    """Write what was asked for; the paths."""
    from sciffusion.evaluation.settings import save_settings

    asked = (
        (args.report, evaluation.to_html),
        (args.figures, evaluation.to_figures),
        (args.json, evaluation.to_json),
        (args.netcdf, evaluation.to_netcdf),
    )
    written = []
    for path, write in asked:
        if path:
            write(path)
            written.append(path)
    if args.report:
        beside = Path(args.report).with_suffix(".yaml")
        save_settings(settings, beside)
        written.append(str(beside))
    return written


def _pairs(entries: list[str], option: str) -> dict[str, str]:
    wrong = [entry for entry in entries if "=" not in entry]
    if wrong:
        raise SciffusionError(f"{option} {wrong[0]!r} has no '='", f"write {option} name=value")
    return dict(entry.split("=", 1) for entry in entries)
