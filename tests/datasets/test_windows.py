"""Windows of time: each entry where it belongs, and all of them back again."""

import errno

import numpy as np
import pytest
import xarray as xr

from sciffusion.cli import main
from sciffusion.datasets import from_windows, to_windows, write_windows
from sciffusion.errors import SciffusionError


def film(times=10, calendar=None):
    start = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    time = (
        start
        if calendar is None
        else xr.date_range("2001-01-01", periods=times, freq="6h", calendar=calendar, use_cftime=True)
    )
    values = np.arange(times * 6.0).reshape(times, 2, 3).astype("f4")
    return xr.Dataset(
        {"a": (("time", "y", "x"), values, {"units": "K"}), "height": (("y", "x"), np.ones((2, 3)))},
        {"time": time},
        {"title": "film"},
    )


def test_a_window_holds_the_times_from_its_label_on():
    windows = to_windows(film(), 3, stride=2)
    assert windows.a.dims == ("time", "frame", "y", "x")
    assert windows.sizes["time"] == 4
    np.testing.assert_array_equal(windows.frame, [0, 6, 12])
    np.testing.assert_array_equal(windows.a.isel(time=1), film().a.isel(time=slice(2, 5)))
    assert windows.height.dims == ("y", "x")
    assert windows.attrs["title"] == "film"


@pytest.mark.parametrize("calendar", [None, "noleap"])
@pytest.mark.parametrize("stride", [1, 3])
def test_windows_of_all_times_go_back_to_them(calendar, stride):
    whole = film(9, calendar)
    back = from_windows(to_windows(whole, 3, stride=stride))
    xr.testing.assert_equal(back.a, whole.a)
    assert back.a.attrs == whole.a.attrs


def test_other_dims_stay(tmp_path):
    windows = to_windows(film(), 2)
    members = xr.concat([windows.a, windows.a + 1], "member").to_dataset()
    assert from_windows(members).a.dims == ("member", "time", "y", "x")


def test_a_store_written_in_blocks_is_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("sciffusion.datasets.windows.BLOCK", 40)
    path = write_windows(film(11), tmp_path / "w.zarr", 3, stride=1)
    xr.testing.assert_equal(xr.open_zarr(path).load(), to_windows(film(11), 3, stride=1))


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_store_is_replaced_when_asked_to_by_a_whole_one(tmp_path, monkeypatch):
    path = write_windows(film(), tmp_path / "w.zarr", 2)
    with pytest.raises(SciffusionError, match="exists already"):
        write_windows(film(), path, 3)
    write_windows(film(), path, 3, overwrite=True)
    assert xr.open_zarr(path).sizes["frame"] == 3

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(SciffusionError, match="No space left"):
        write_windows(film(), path, 2, overwrite=True)
    assert xr.open_zarr(path).sizes["frame"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_gaps_and_too_few_times_are_refused(tmp_path):
    with pytest.raises(SciffusionError, match="evenly spaced"):
        write_windows(film().isel(time=[0, 1, 2, 5, 6]), tmp_path / "w.zarr", 2)
    with pytest.raises(SciffusionError, match="windows of 20 entries of 10"):
        to_windows(film(), 20)
    assert not list(tmp_path.iterdir())


def test_windows_that_cannot_be_written_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(SciffusionError, match="No space left"):
        write_windows(film(), tmp_path / "w.zarr", 3)
    assert list(tmp_path.iterdir()) == []


def test_the_command_goes_there_and_back_and_names_a_folder_that_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    film(9).to_netcdf("film.nc")
    assert main(["windows", "film.nc", "--frames", "3", "-o", "w.zarr"]) == 0
    assert main(["windows", "w.zarr", "--back", "-o", "none/back.nc"]) == 2
    assert "its folder does not exist" in capsys.readouterr().err
    assert main(["windows", "w.zarr", "--back", "-o", "back.nc"]) == 0
    assert main(["windows", "w.zarr", "--back", "-o", "back.nc"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["windows", "w.zarr", "--back", "-o", "back.nc", "--overwrite"]) == 0
    np.testing.assert_array_equal(xr.open_dataset("back.nc").a, film(9).a)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.nc", "film.nc", "w.zarr"]
