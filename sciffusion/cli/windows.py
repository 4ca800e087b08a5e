"""``sciffusion windows``: windows of several times as one field, for the recipe of that name; and back."""

import argparse

HELP = "cut data into windows of several times, with time as a grid axis; --back undoes it"
EXAMPLE = "sciffusion windows fine.zarr --frames 4 -o windows.zarr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``windows``."""
    parser.add_argument("data", nargs="+", metavar="PATH", help="files, a store, or with --back an ensemble of windows")
    parser.add_argument("--frames", type=int, default=4, help="times in a window (default 4)")
    parser.add_argument("--stride", type=int, help="times between the starts of windows (default: --frames)")
    parser.add_argument("--dim", default="time", help="dim of the times (default time)")
    parser.add_argument("--back", action="store_true", help="windows to single times again")
    parser.add_argument("-o", "--output", required=True, help="NAME.zarr, or NAME.nc with --back")
    parser.add_argument("--overwrite", action="store_true", help="replace the output once the new one is complete")


def run(args: argparse.Namespace) -> int:
    """Write the windows, or the times."""
    from pathlib import Path

    from sciffusion.config import Source
    from sciffusion.datasets import from_windows, write_windows
    from sciffusion.fields.ensemble import is_ensemble_store, open_ensemble
    from sciffusion.fields.open import open_source
    from sciffusion.fields.output import refuse_existing, write_netcdf

    if not args.back:
        source = open_source(Source(paths=args.data))
        print(write_windows(source, args.output, args.frames, args.dim, args.stride, overwrite=args.overwrite))
        return 0
    refuse_existing(Path(args.output), args.overwrite)
    first = Path(args.data[0])
    windows = open_ensemble(first) if is_ensemble_store(first) else open_source(Source(paths=args.data))
    write_netcdf(from_windows(windows.load(), args.dim), args.output, overwrite=args.overwrite, as_is=True)
    print(args.output)
    return 0
