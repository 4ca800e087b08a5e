"""``sciffusion init``: look at the user's files and write an experiment that trains without further edits."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.errors import SciffusionError

if TYPE_CHECKING:
    from sciffusion.cli.findings import CoarseFound, StaticFound
    from sciffusion.fields.survey import Survey

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "look at your files and write an experiment YAML that trains without further edits"
EXAMPLE = "sciffusion init --target fine.zarr --coarse coarse.nc --static static.nc -o experiment.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add(
        "--target",
        action="extend",
        nargs="+",
        metavar="PATH",
        help="the fine field: NetCDF files, Zarr stores or globs",
    )
    add(
        "--coarse",
        action="extend",
        nargs="+",
        metavar="PATH",
        help="the coarse field; default: the target's own coarsening",
    )
    add("--static", action="extend", nargs="+", metavar="PATH", help="fields without time, such as orography")
    add("--variables", metavar="A,B", help="target variables; default: all fields found")
    add("--dims", metavar="Y,X", help="grid dims, slowest first; default: found by attributes and names")
    add(
        "--select", action="append", default=[], metavar="DIM=FIRST/LAST", help="use part of the target: time=1990/2010"
    )
    add("--dx", metavar="LENGTH", help="spacing of dims without coordinates: 1000, or y=1000,x=500")
    add("--factor", type=float, default=4.0, help="coarsening factor when there is no coarse file (default 4)")
    add("--recipe", default="edm", metavar="NAME", help="family of models, see `sciffusion recipes` (default edm)")
    add("--combine", metavar="DIM", help="dim along which files that nothing tells apart are stacked")
    add("-o", "--output", default="experiment.yaml", metavar="YAML", help="file to write (default experiment.yaml)")
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--schema", action="store_true", help="print the JSON schema of every setting, and stop")


def run(args: argparse.Namespace) -> int:
    """Write the experiment, its schema beside it, and print what was found and decided."""
    from sciffusion.config import json_schema, load_experiment

    if args.schema:
        print(json.dumps(json_schema(), indent=2))
        return 0
    from sciffusion.fields.output import write_text

    path = Path(args.output)
    _check_arguments(args, path)
    text, findings = _compose(args, path)
    write_text(path, text)
    write_text(_schema_path(path), json.dumps(json_schema(), indent=2) + "\n")
    load_experiment(path)
    print("\n".join(findings))
    print(_next_commands(args, path))
    return 0


def _check_arguments(args: argparse.Namespace, path: Path) -> None:
    if not args.target:
        raise SciffusionError("no target", "give the files of the fine field: --target fine.zarr")
    if path.exists() and not args.overwrite:
        raise SciffusionError(f"{path} exists", "give another name with -o, or --overwrite")
    if args.factor <= 1:
        raise SciffusionError(f"--factor {args.factor:g}: not coarser", "give a factor above 1")
    if not path.parent.is_dir():
        raise SciffusionError(f"{path}: the folder {path.parent} does not exist", "make it first")


def _compose(args: argparse.Namespace, path: Path) -> tuple[str, list[str]]:
    """The YAML's text and the findings, from the data."""
    from sciffusion import recipes
    from sciffusion.cli.proposal import propose
    from sciffusion.config import Source
    from sciffusion.fields.open import open_source
    from sciffusion.fields.survey import layout_of, survey
    from sciffusion.recipes.writer import render

    wanted, dims = _names(args.variables), _names(args.dims)
    how = _how(args)
    layout = layout_of(open_source(Source(paths=args.target, **how), wanted, check=False), wanted, dims)
    ds = open_source(Source(paths=args.target, **how), [*layout.fields, *layout.static], layout.dims)
    fine = survey(ds, wanted, layout.dims)
    spacing = _spacing(args.dx, layout.dims)
    source = _source(args.target, path) | how
    factor = int(args.factor) if args.factor == int(args.factor) else args.factor
    proposal = propose(
        fine,
        source,
        coarse=_coarse(args, fine, spacing, path) if args.coarse else None,
        static=_static(args, fine, source, path),
        factor=factor,
        spacing=spacing,
        output=f"{path.stem}_run" if path.stem != "experiment" else "run",
    )
    settings = recipes.adopt(args.recipe, proposal.settings)
    comments = _moved(proposal.comments, len(settings["stages"]))
    proposal.findings += [f"left out   {name}: {why}" for name, why in layout.left_out.items()]
    head = [
        f"yaml-language-server: $schema={_schema_path(path).name}",
        f"Written by `sciffusion init` from {', '.join(args.target)}. Every setting: `sciffusion init --schema`.",
    ]
    return render(settings, comments, head), proposal.findings


def _moved(comments: dict[str, str], stages: int) -> dict[str, str]:
    """Comments of a single stage, where several stand: that of the constraint belongs to the last."""
    last = f"stages.{stages - 1}.constraint"
    return {last if path == "stages.0.constraint" else path: text for path, text in comments.items()}


def _coarse(args: argparse.Namespace, fine: "Survey", spacing: dict[str, float], path: Path) -> "CoarseFound":
    """Open the coarse files under the target's names and compare them with the target."""
    from sciffusion.cli.findings import CoarseFound
    from sciffusion.config import Source
    from sciffusion.fields.open import check_overlap, open_source
    from sciffusion.fields.pairing import alignment, consistency, factors, matching_names, served
    from sciffusion.fields.survey import layout_of

    raw = open_source(Source(paths=args.coarse), check=False)
    rename = matching_names(fine, raw)
    coarse = open_source(Source(paths=args.coarse, rename=rename))
    align = alignment(fine.ds, coarse)
    check_overlap(fine.ds, coarse, fine.layout.dims, align=align)
    factor = factors(fine, coarse)
    found = layout_of(coarse, dims=fine.layout.dims)
    if max(factor.values()) <= 1:
        raise SciffusionError(
            f"the coarse data are no coarser than the target ({factor})", "swap --target and --coarse"
        )
    return CoarseFound(
        source=_source(args.coarse, path) | ({"rename": rename} if rename else {}),
        variables=list(found.fields),
        factor=factor,
        align=align,
        consistency=consistency(fine, coarse, spacing, align),
        served={dim: served(fine.ds, coarse, dim, align) for dim in fine.layout.case_dims},
        extra_dims=[dim for dim in found.case_dims if dim not in fine.layout.case_dims],
    )


def _static(args: argparse.Namespace, fine: "Survey", source: dict[str, Any], path: Path) -> "StaticFound | None":
    """Static fields of their own files, or those that the target's files hold beside the fields."""
    from sciffusion.cli.findings import StaticFound
    from sciffusion.config import Source
    from sciffusion.fields.open import open_source
    from sciffusion.fields.pairing import matching_names
    from sciffusion.fields.survey import layout_of

    if not args.static:
        return StaticFound(source, list(fine.layout.static)) if fine.layout.static else None
    rename = matching_names(fine, open_source(Source(paths=args.static), check=False))
    ds = open_source(Source(paths=args.static, rename=rename))
    layout = layout_of(ds, dims=fine.layout.dims)
    if layout.case_dims:
        raise SciffusionError(
            f"the static fields {', '.join(layout.fields)} vary along {', '.join(layout.case_dims)}",
            "give fields without time, or select one entry under conditions.static.source.select",
        )
    _check_region(fine, ds)
    return StaticFound(_source(args.static, path) | ({"rename": rename} if rename else {}), list(layout.fields))


def _check_region(fine: "Survey", ds: Any) -> None:
    """Refuse static fields of another region."""
    from sciffusion.fields.open import check_overlap

    check_overlap(fine.ds.drop_dims([d for d in fine.layout.case_dims]), ds, fine.layout.dims, name="static")


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text else None


def _how(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the target's source: ``combine`` and ``select``, where given."""
    select: dict[str, Any] = {}
    for text in args.select:
        dim, separator, wanted = text.partition("=")
        if not separator or not wanted:
            raise SciffusionError(f"--select {text}: no range", "write --select time=1990/2010, or level=500")
        ends = [_number(end) for end in wanted.split("/", 1)]
        select[dim.strip()] = ends if len(ends) == 2 else ends[0]
    return ({"combine": args.combine} if args.combine else {}) | ({"select": select} if select else {})


def _number(text: str) -> str | int | float:
    """A label as YAML would read it: a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _spacing(text: str | None, dims: tuple[str, ...]) -> dict[str, float]:
    """``1000`` for all dims, or ``y=1000,x=500``."""
    if not text:
        return {}
    try:
        if "=" not in text:
            return dict.fromkeys(dims, float(text))
        pairs = (part.split("=", 1) for part in text.split(","))
        return {dim.strip(): float(value) for dim, value in pairs}
    except ValueError:
        raise SciffusionError(f"--dx {text}: not a length", "write --dx 1000, or --dx y=1000,x=500") from None


def _source(paths: list[str], yaml_path: Path) -> dict[str, Any]:
    """Paths as the YAML holds them: relative to its folder where they were given relative."""
    folder = yaml_path.parent.resolve()

    def relative(path: str) -> str:
        if "://" in path or Path(path).expanduser().is_absolute():
            return path
        return os.path.relpath(Path(path).absolute(), folder)

    return {"paths": [relative(path) for path in paths]}


def _schema_path(path: Path) -> Path:
    return path.with_suffix(".schema.json")


def _next_commands(args: argparse.Namespace, path: Path) -> str:
    run_folder = path.parent / (f"{path.stem}_run" if path.stem != "experiment" else "run")
    target = args.target[0] if len(args.target) == 1 else f"'{args.target[0]}' ..."
    return (
        f"\nwrote {path} (and {_schema_path(path).name} for editors); next:\n"
        f"  sciffusion train {path}\n"
        f"  sciffusion generate {run_folder} --members 16 --output ens.zarr\n"
        f"  sciffusion evaluate ens.zarr --reference {target} --report report.html"
    )
