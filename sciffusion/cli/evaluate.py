"""``sciffusion evaluate``: judge any ensemble against a reference, and write the report."""

import argparse
from typing import TYPE_CHECKING

from sciffusion.errors import SciffusionError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "score an ensemble against the truth, beside baselines, and write a report"
EXAMPLE = "sciffusion evaluate ens.zarr --reference fine.zarr --baselines linear=lin.zarr --report report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ensemble", help="ensemble to judge: NetCDF files or a Zarr store")
    parser.add_argument(
        "--reference", required=True, nargs="+", metavar="PATH", help="the truth: files, globs or a store"
    )
    parser.add_argument("--coarse", nargs="+", metavar="PATH", help="coarse input, to check that members agree with it")
    parser.add_argument(
        "--training", nargs="+", metavar="PATH", help="training data: its cases are scored apart, as IN-SAMPLE"
    )
    parser.add_argument("--baselines", nargs="+", default=[], metavar="NAME=PATH", help="ensembles to compare with")
    parser.add_argument(
        "--rename",
        nargs="+",
        default=[],
        metavar="NAME=OTHER",
        help="names in the reference and coarse data -> names in the ensemble",
    )
    parser.add_argument(
        "--variables", nargs="+", metavar="NAME", help="variables to score (default: all of the ensemble)"
    )
    parser.add_argument("--dims", nargs="+", metavar="DIM", help="grid dims, where coordinates do not tell")
    parser.add_argument("--periodic", nargs="*", metavar="DIM", help="grid dims that wrap around")
    parser.add_argument("--member", metavar="DIM", help="the ensemble dim, where its name does not tell")
    parser.add_argument(
        "--estimator", default="fair", choices=("fair", "standard", "almost fair"), help="estimator of the CRPS"
    )
    parser.add_argument("--window", default="hann", choices=("hann", "dct"), help="for spectra of open domains")
    parser.add_argument(
        "--block", type=int, metavar="N", help="consecutive cases that hang together (default: estimated)"
    )
    parser.add_argument("--partial", action="store_true", help="accept an ensemble store that is not complete")
    parser.add_argument(
        "--state", metavar="FILE", help="keep the sums there: an interrupted evaluation goes on from it"
    )
    parser.add_argument("--report", metavar="FILE.html", help="write the report")
    parser.add_argument("--json", metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--netcdf", metavar="FILE", help="write all numbers as NetCDF")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the scorecard, write what was asked for."""
    from sciffusion.evaluation import evaluate

    rename = _pairs(args.rename, "--rename")
    evaluation = evaluate(
        _open([args.ensemble], partial=args.partial),
        _open(args.reference, rename),
        baselines={
            name: _open([path], partial=args.partial) for name, path in _pairs(args.baselines, "--baselines").items()
        },
        coarse=_open(args.coarse, rename) if args.coarse else None,
        training=_open(args.training, rename) if args.training else None,
        grid=args.dims,
        periodic=args.periodic,
        member=args.member,
        variables=args.variables,
        estimator=args.estimator,
        window=args.window,
        block=args.block,
        state=args.state,
        progress=lambda label: print(f"evaluating {label}", flush=True),
    )
    print(f"\n{evaluation.summary()}")
    for path, write in (
        (args.report, evaluation.to_html),
        (args.json, evaluation.to_json),
        (args.netcdf, evaluation.to_netcdf),
    ):
        if path:
            write(path)
            print(f"wrote {path}")
    return 0


def _pairs(entries: list[str], option: str) -> dict[str, str]:
    wrong = [entry for entry in entries if "=" not in entry]
    if wrong:
        raise SciffusionError(f"{option} {wrong[0]!r} has no '='", f"write {option} name=value")
    return dict(entry.split("=", 1) for entry in entries)


def _open(paths: list[str], rename: dict[str, str] | None = None, *, partial: bool = False) -> "xr.Dataset":
    """An ensemble store of ours, complete unless ``partial``, or any other data."""
    from pathlib import Path

    from sciffusion.config import Source
    from sciffusion.fields.open import open_source
    from sciffusion.fields.reader import is_ensemble_store, open_ensemble

    if len(paths) == 1 and is_ensemble_store(Path(paths[0])):
        return open_ensemble(paths[0], partial=partial).rename(rename or {})
    return open_source(Source(paths=paths, rename=rename or {}))
