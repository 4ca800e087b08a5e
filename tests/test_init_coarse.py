"""`sciffusion init` with a coarse file: how it belongs to the target, and whether members must reproduce it."""

import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.labels import positions
from tests.init_data import coarsened, globe, projected, run_init


def test_a_coarse_file_that_is_the_coarsened_target_constrains(tmp_path):
    ds = globe()[["uas", "vas"]]
    ds.to_zarr(tmp_path / "fine.zarr")
    coarse = coarsened(ds, ["uas", "vas"], ["lat", "lon"], "sphere", ["lon"], 4)
    coarse.rename(lat="latitude", lon="longitude", uas="UAS").to_netcdf(tmp_path / "coarse.nc")
    experiment, text = run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--coarse", tmp_path / "coarse.nc")
    condition = experiment.conditions["coarse"]
    assert condition.source.rename == {"latitude": "lat", "longitude": "lon", "UAS": "uas"}
    assert condition.variables == ["uas", "vas"]
    assert experiment.stages[0].constraint == "coarse"
    assert "verified on 4 cases" in text
    assert "coarser by 4 along lat, 4 along lon" in text


def test_a_biased_coarse_file_does_not_constrain(tmp_path, capsys):
    ds = globe()[["uas", "vas"]]
    ds.to_zarr(tmp_path / "fine.zarr")
    coarse = coarsened(ds, ["uas", "vas"], ["lat", "lon"], "sphere", ["lon"], 3)
    (coarse * 0.9 + 0.5).to_netcdf(tmp_path / "coarse.nc")
    experiment, text = run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--coarse", tmp_path / "coarse.nc")
    assert experiment.stages[0].constraint is None
    assert experiment.stages[0].baseline == "coarse"
    assert "coarse is not C(fine)" in text
    assert "WARNING" not in capsys.readouterr().out


def test_a_latitude_longitude_model_over_a_projected_region_asks_for_regridding(tmp_path):
    fine = projected(times=24)[["sst"]]
    fine.to_netcdf(tmp_path / "fine.nc")
    globe()[["uas"]].rename(uas="sst").assign_coords(time=fine.time).to_netcdf(tmp_path / "coarse.nc")
    with pytest.raises(SciffusionError, match=r"(?s)plays the role of 'y'.*same kind first"):
        run_init(tmp_path, "--target", tmp_path / "fine.nc", "--coarse", tmp_path / "coarse.nc")


def test_an_unpaired_coarse_file_is_warned_of(tmp_path, capsys):
    globe(seed=0)[["uas"]].to_zarr(tmp_path / "fine.zarr")
    other = coarsened(globe(seed=9)[["uas"]], ["uas"], ["lat", "lon"], "sphere", ["lon"], 4)
    other.to_netcdf(tmp_path / "coarse.nc")
    run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--coarse", tmp_path / "coarse.nc")
    assert "WARNING    coarse uas hardly follows the target" in capsys.readouterr().out


def test_masked_coarse_data_of_a_larger_region_are_compared_where_both_are(tmp_path):
    ds = projected()[["sst"]]
    coarse = coarsened(ds, ["sst"], ["y", "x"], "plane", [], 4)
    ds.isel(y=slice(8, 32), x=slice(8, 40)).to_netcdf(tmp_path / "fine.nc")
    coarse.to_netcdf(tmp_path / "coarse.nc")
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "fine.nc", "--coarse", tmp_path / "coarse.nc")
    assert experiment.stages[0].constraint == "coarse"


def test_sparser_coarse_times_are_aligned_to_the_previous(tmp_path):
    ds = globe(times=24)[["uas"]]
    ds.to_zarr(tmp_path / "fine.zarr")
    coarse = coarsened(ds, ["uas"], ["lat", "lon"], "sphere", ["lon"], 4)
    coarse.isel(time=slice(0, None, 4)).to_netcdf(tmp_path / "coarse.nc")
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--coarse", tmp_path / "coarse.nc")
    assert experiment.conditions["coarse"].align == "previous"


def test_only_the_period_that_both_have_is_split(tmp_path, capsys):
    ds = globe(times=40)[["uas"]]
    ds.to_zarr(tmp_path / "fine.zarr")
    coarse = coarsened(ds, ["uas"], ["lat", "lon"], "sphere", ["lon"], 4)
    coarse.isel(time=slice(10, 34)).to_netcdf(tmp_path / "coarse.nc")
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--coarse", tmp_path / "coarse.nc")
    assert positions(ds, "time", *experiment.split.train[0])[0] == 10
    assert positions(ds, "time", *experiment.split.test[0])[-1] == 33
    assert "has entries for 24 of 40 along time" in capsys.readouterr().out


def test_dims_that_only_the_coarse_data_have_become_cases(tmp_path, capsys):
    ds = globe()[["uas"]]
    ds.to_zarr(tmp_path / "fine.zarr")
    coarse = coarsened(ds, ["uas"], ["lat", "lon"], "sphere", ["lon"], 4)
    xr.concat([coarse, coarse + 0.1], "realization").to_netcdf(tmp_path / "coarse.nc")
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--coarse", tmp_path / "coarse.nc")
    assert experiment.split.dim == "time"
    assert "varies along realization too" in capsys.readouterr().out
