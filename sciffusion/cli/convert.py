"""``sciffusion convert``: an ensemble as one NetCDF4 file."""

import argparse
from pathlib import Path

from sciffusion.errors import SciffusionError

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "copy an ensemble store into one NetCDF4 file"
EXAMPLE = "sciffusion convert ens.zarr ens.nc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ensemble", help="ensemble store that generate wrote")
    parser.add_argument("output", help="NAME.nc")
    parser.add_argument("--members", help="which (0,3,7 or 0-9); default all that are complete")
    parser.add_argument("--partial", action="store_true", help="incomplete members too, missing values where they lack")
    parser.add_argument("--overwrite", action="store_true", help="replace the output once the new one is complete")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the store with its checksums first")


def run(args: argparse.Namespace) -> int:
    """Convert, and print where the file is."""
    from sciffusion.cli.generate import parse_members
    from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store, open_ensemble, write_netcdf

    source, output = Path(args.ensemble), Path(args.output)
    if output.suffix not in {".nc", ".nc4", ".netcdf"}:
        raise SciffusionError(f"{output}: not the name of a NetCDF file", "let it end in .nc")
    if is_ensemble_store(source) and not args.no_verify:
        faults = EnsembleStore(source).verify()
        if faults:
            first = f"the first is case {faults[0].case}, member {faults[0].member}"
            mend = "run its generate command again, which makes them anew"
            raise SciffusionError(f"{source}: {len(faults)} items are damaged, {first}", mend)
    ds = open_ensemble(source, partial=args.partial)
    if args.members is not None:
        wanted = parse_members(args.members)
        numbers = list(range(wanted)) if isinstance(wanted, int) else wanted
        missing = sorted(set(numbers) - set(ds["member"].values.tolist()))
        if missing:
            raise SciffusionError(f"{source}: has no complete member {missing[0]}", "see `sciffusion inspect`")
        ds = ds.sel(member=numbers)
    write_netcdf(ds, output, overwrite=args.overwrite)
    print(output)
    return 0
