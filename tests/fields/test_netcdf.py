"""NetCDF ensembles pass the CF checker (IOOS compliance-checker, CF 1.11), whichever way the store kept its numbers."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr

from sciffusion.cli import main
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.fields.storage import Storage

SCALE = {"units_metadata": "temperature: on_scale"}


def template(calendar):
    """Two variables that are well described, as files of a data centre are."""
    time = xr.date_range("2001-02-27", periods=2, calendar=calendar, use_cftime=calendar != "standard")
    coords = {
        "time": time,  # its standard name is added
        "lat": ("lat", np.linspace(60, -60, 5), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(7.0), {"units": "degrees_east", "standard_name": "longitude"}),
    }
    dims = tuple(coords)
    nothing = np.broadcast_to(np.float32(np.nan), (2, 5, 7))
    return xr.Dataset(
        {
            "t2m": (dims, nothing, {"units": "K", "standard_name": "air_temperature", **SCALE}),
            "u": (dims, nothing, {"units": "m s-1", "standard_name": "eastward_wind"}),
        },
        coords | {"training_case": ("time", np.arange(2) > 0, {"long_name": "case was used in training"})},
        {"title": "two variables", "institution": "nowhere"},
    )


def store(path, calendar="noleap", storage=None, leave=()):
    identity = {"seed": 1, **({"storage": storage.to_json()} if storage else {})}
    made, rng = EnsembleStore.create(path, template(calendar), [0, 1, 4], ["time"], identity), np.random.default_rng(0)
    for case in range(2):
        for member in (0, 1, 4):
            if (case, member) not in leave:
                made.write(case, member, {n: 250 + rng.standard_normal((5, 7), np.float32) for n in ("t2m", "u")})
    return made


def cf_messages(path):
    """What the checker has to say, by the section of the conventions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = pytest.importorskip("compliance_checker.runner")
        runner.CheckSuite.load_all_available_checkers()
        report = path.with_suffix(".json")
        settings = {"verbose": 0, "criteria": "strict", "output_filename": str(report), "output_format": "json"}
        runner.ComplianceChecker.run_checker(str(path), ["cf:1.11"], **settings)
    found = json.loads(report.read_text())["cf:1.11"]
    assert found["possible_points"] > 50, "the checker has looked at the file"
    levels = (found[level] for level in ("high_priorities", "medium_priorities", "low_priorities"))
    return {check["name"]: check["msgs"] for level in levels for check in level if check["msgs"]}


LOSSY = Storage(round_bits=9, pack={"t2m": (150.0, 350.0)})


@pytest.mark.parametrize(("calendar", "storage"), [("standard", None), ("noleap", None), ("360_day", LOSSY)])
def test_a_converted_store_conforms_to_cf(tmp_path, calendar, storage):
    store(tmp_path / "e.zarr", calendar, storage).finalise()
    assert main(["convert", str(tmp_path / "e.zarr"), str(tmp_path / "e.nc")]) == 0
    messages = cf_messages(tmp_path / "e.nc")
    messages.pop("§4.4 Time Coordinate", None)  # a recommendation of CF 1.12: whether times count leap seconds
    assert messages == {}
    xr.testing.assert_identical(
        open_ensemble(tmp_path / "e.nc").load().drop_attrs(), open_ensemble(tmp_path / "e.zarr").load().drop_attrs()
    )


def test_the_checker_finds_what_is_wrong(tmp_path):
    store(tmp_path / "e.zarr").finalise()
    wrong = open_ensemble(tmp_path / "e.zarr").load()
    wrong["t2m"].attrs["units"] = "furlongs"
    wrong.to_netcdf(tmp_path / "e.nc", encoding={"lat": {"_FillValue": -999.0}})
    text = str(cf_messages(tmp_path / "e.nc"))
    assert "furlongs" in text
    assert "'lat' must not have the _FillValue" in text


def test_only_complete_members_are_converted_unless_told(tmp_path, capsys):
    store(tmp_path / "e.zarr", leave=[(1, 4)])
    path, output = str(tmp_path / "e.zarr"), tmp_path / "e.nc"
    assert main(["convert", path, str(output)]) == 0
    assert xr.open_dataset(output).member.values.tolist() == [0, 1]
    assert main(["convert", path, str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", path, str(output), "--partial", "--overwrite"]) == 0
    with xr.open_dataset(output) as ds:
        assert ds.member.values.tolist() == [0, 1, 4]
        assert bool(ds.t2m.sel(member=4).isel(time=1).isnull().all())
    assert main(["convert", path, str(output), "--members", "1-1", "--overwrite"]) == 0
    assert xr.open_dataset(output).member.values.tolist() == [1]
    assert main(["convert", path, str(output), "--members", "0,4", "--overwrite"]) == 2
    assert "no complete member 4" in capsys.readouterr().err


def test_a_damaged_store_is_not_converted(tmp_path, capsys):
    store(tmp_path / "e.zarr")
    chunk = tmp_path / "e.zarr/u/c/1/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert main(["convert", str(tmp_path / "e.zarr"), str(tmp_path / "e.nc")]) == 2
    assert "1 items are damaged, the first is case 0, member 1" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "e.zarr"), str(tmp_path / "e.txt")]) == 2
    assert not (tmp_path / "e.nc").exists()
