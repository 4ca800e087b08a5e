"""Opening an experiment: cases, splits, alignment, and one clear message for whatever does not fit."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.conditioners.base import Training
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.datasets import open_example, open_experiment
from sciffusion.errors import SciffusionError
from tests.datasets.conftest import globe, settings


def with_coarse(folder, data, **entries):
    """The experiment with a coarse field of its own file."""
    path = folder / f"coarse{len(list(folder.iterdir()))}.nc"  # a file that is open cannot be overwritten
    data.to_netcdf(path)
    coarse = {"kind": "coarse", "variables": ["v", "t"], "source": {"paths": [str(path)]}} | entries
    return settings(folder, conditions={"coarse": coarse})


def blocks(data):
    """3 x 3 block means of 18 rows, under other names and in other units."""
    means = data.isel(latitude=slice(0, 18)).coarsen(latitude=3, longitude=3).mean()
    means["t"] = (means["t"] - 273.15).assign_attrs(units="degC")
    means["latitude"].attrs = data.latitude.attrs
    means["longitude"].attrs = data.longitude.attrs
    return means.rename(latitude="lat", longitude="lon")


def labels(cases):
    return [case.labels for case in cases]


def test_partial_dates_split_the_cases(folder):
    data = open_experiment(settings(folder))
    assert {name: len(cases) for name, cases in data.cases.items()} == {"train": 4, "validation": 2, "test": 2}
    assert labels(data.cases["test"]) == [("2001-01-02T12:00:00",), ("2001-01-02T18:00:00",)]
    assert data.grid.shape == (19, 36)
    assert list(data.conditions) == ["coarse", "land", "forcing", "clock", "where"]
    assert data.conditions["coarse"] is data.target
    assert not data.conditions["clock"].data_vars


def test_data_in_memory_is_the_same_and_left_on_disk_where_it_does_not_fit(folder, monkeypatch):
    data = open_experiment(settings(folder))
    read = data.in_memory()
    assert read.conditions["coarse"] is read.target
    assert all(variable._in_memory for variable in read.target.variables.values())
    xr.testing.assert_identical(read.target, data.target)
    monkeypatch.setattr("sciffusion.datasets.pairs.available_memory", lambda: data.target.nbytes)
    assert data.in_memory() is data


def test_positions_split_cases_without_coordinates(folder):
    run = globe().drop_vars("time").rename(time="sample")
    run.to_netcdf(folder / "fine.nc")
    split = {"dim": "sample", "train": [[0, 4]], "test": [[6, 7]]}
    experiment = settings(folder, split=split, conditions={"coarse": settings(folder).conditions["coarse"]})
    data = open_experiment(experiment)
    assert labels(data.cases["train"]) == [(index,) for index in range(5)]
    assert labels(data.cases["test"]) == [(6,), (7,)]
    assert data.cases["validation"] == []


def test_a_single_case_serves_every_split(folder):
    globe().isel(time=0, drop=True).to_netcdf(folder / "fine.nc")
    split = {"dim": None, "train": [[0, 0]]}
    data = open_experiment(settings(folder, split=split, conditions={"coarse": settings(folder).conditions["coarse"]}))
    assert labels(data.cases["train"]) == labels(data.cases["test"]) == [()]


def test_a_coarse_source_is_renamed_and_converted(folder):
    data = open_experiment(with_coarse(folder, blocks(globe())))
    coarse = data.conditions["coarse"]
    assert coarse["t"].dims == ("time", "latitude", "longitude")
    assert 250 < float(coarse["t"].min()) < float(coarse["t"].max()) < 310
    assert coarse["t"].attrs["units"] == "K"


def test_dims_of_the_condition_alone_multiply_the_cases(folder):
    members = xr.concat([blocks(globe(seed=seed)) for seed in range(3)], "source_member")
    data = open_experiment(with_coarse(folder, members))
    assert len(data.cases["train"]) == 4 * 3
    assert data.cases["train"][0].dims == ("time", "source_member")
    assert labels(data.cases["train"])[:4] == [("2001-01-01T00:00:00", m) for m in range(3)] + [
        ("2001-01-01T06:00:00", 0)
    ]


def test_cases_that_a_condition_does_not_serve_are_left_out_and_counted(folder, caplog):
    sparse = blocks(globe()).isel(time=[0, 2, 4, 6])
    data = open_experiment(with_coarse(folder, sparse))
    assert [len(data.cases[name]) for name in ("train", "validation", "test")] == [2, 1, 1]
    assert "no data for 4 of 8 cases" in caplog.text
    between = open_experiment(with_coarse(folder, sparse, align="interpolate"))
    assert [len(between.cases[name]) for name in ("train", "validation", "test")] == [4, 2, 1]
    previous = open_experiment(with_coarse(folder, sparse, align="previous"))
    assert [len(previous.cases[name]) for name in ("train", "validation", "test")] == [4, 2, 2]


def later(data):
    return data.assign_coords(time=data.time + np.timedelta64(3650, "D"))


def elsewhere(data):
    return data.isel(latitude=slice(0, 9), longitude=slice(0, 9)).assign_coords(latitude=np.linspace(-50, -80, 9))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ds: blocks(later(ds)), "do not overlap in time"),
        (lambda ds: blocks(ds.assign_coords(time=ds.time + np.timedelta64(1, "h"))), "no time in common"),
        (lambda ds: blocks(ds).rename(t="temp"), "'t'"),
        (lambda ds: blocks(ds).assign(t=lambda d: d.t.assign_attrs(units="kg")), "kg"),
        (lambda ds: blocks(ds) * np.nan, "NaN"),
        (lambda ds: blocks(ds).isel(lon=[0, 2, 1, 3]), "monotonic"),
        (lambda ds: blocks(ds).isel(lat=0), "latitude"),
    ],
)
def test_coarse_data_that_do_not_fit_are_refused_before_any_work(folder, spoil, message):
    with pytest.raises(SciffusionError, match=message) as caught:
        open_experiment(with_coarse(folder, spoil(globe())))
    assert caught.value.mend


def test_a_region_elsewhere_is_refused(folder):
    data = globe().isel(latitude=slice(0, 6), longitude=slice(0, 12))
    data.to_netcdf(folder / "fine.nc")
    experiment = with_coarse(folder, elsewhere(globe()))
    target = experiment.target.model_copy(update={"periodic": []})
    with pytest.raises(SciffusionError, match="do not overlap along 'latitude'"):
        open_experiment(experiment.model_copy(update={"target": target}))


def test_a_global_coarse_model_is_cut_to_a_region_across_the_zero_meridian(folder):
    world = globe()
    order = np.r_[33:36, 0:6]
    region = world.isel(latitude=slice(4, 12), longitude=order)
    degrees = (region.longitude.values + 180) % 360 - 180
    region = region.assign_coords(longitude=("longitude", degrees, world.longitude.attrs))
    region.to_netcdf(folder / "fine.nc")
    experiment = with_coarse(folder, world)
    target = experiment.target.model_copy(update={"periodic": []})
    data = open_experiment(experiment.model_copy(update={"target": target}))
    coarse = data.conditions["coarse"]
    assert coarse.longitude.values.tolist() == list(range(-60, 90, 10))
    assert coarse.latitude.values.tolist() == list(range(80, -60, -10))
    training = Training(target, data.target, data.grid, data.cases["train"])
    conditioner = CoarseField.build("coarse", experiment.conditions["coarse"], coarse, training)
    case = data.cases["train"][2]
    np.testing.assert_allclose(conditioner.baseline(coarse, case)[1], region.t.values[2], rtol=1e-6)
    again, _ = conditioner.accept(world)
    np.testing.assert_array_equal(conditioner.baseline(again, case), conditioner.baseline(coarse, case))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": [["2031", "2040"]]}, "nothing along 'time' from 2031 to 2040"),
        ({"train": [["2001-01-01", "2001-01-02T06"]], "test": [["2001-01-02", "2001-01-02"]]}, "in train and in test"),
        ({"dim": "tim", "train": [[0, 1]]}, "'tim' is not a case dim"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(folder, split, message):
    with pytest.raises(SciffusionError, match=message) as caught:
        open_experiment(settings(folder, split=split))
    assert caught.value.mend


def test_a_misspelt_variable_is_refused_with_the_near_one(folder):
    target = settings(folder).target.model_dump() | {"variables": {"T": {}}}
    coarse = {"coarse": {"kind": "coarse", "variables": ["T"], "factor": 3}}
    with pytest.raises(SciffusionError, match="did you mean 't'"):
        open_experiment(settings(folder, target=target, conditions=coarse))


def test_columns_that_repeat_the_first_are_dropped(folder):
    data = globe()
    cyclic = xr.concat([data, data.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude")
    cyclic["longitude"].attrs = data.longitude.attrs
    cyclic.to_netcdf(folder / "fine.nc")
    assert open_experiment(settings(folder)).grid.shape == (19, 36)


def test_the_embedded_example_is_a_source(folder):
    target = {
        "source": {"paths": ["example://era5"]},
        "variables": {"u10": {}, "t2m": {}},
        "dims": ["latitude", "longitude"],
        "geometry": "sphere",
        "periodic": ["longitude"],
    }
    conditions = {
        "coarse": {"kind": "coarse", "variables": ["u10", "t2m"], "factor": 4},
        "static": {
            "kind": "static",
            "source": {"paths": ["example://era5-static"]},
            "variables": ["orography", "land"],
        },
    }
    split = {"train": [["2026-03-25", "2026-03-29"]], "test": [["2026-03-30", "2026-03-31"]]}
    data = open_experiment(settings(folder, target=target, conditions=conditions, split=split))
    with open_example("era5") as week:
        assert len(data.cases["train"]) + len(data.cases["test"]) == week.sizes["time"]
        assert list(data.target.data_vars) == ["u10", "t2m"]
