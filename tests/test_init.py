"""`sciffusion init` on data sets unlike each other: the right decisions, in a YAML that loads and validates."""

import argparse
import json
import os
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
import xarray as xr
import yaml
from zarr.storage import LocalStore

from sciffusion.cli import init
from sciffusion.config import load_experiment
from sciffusion.errors import SciffusionError
from sciffusion.fields.labels import positions
from tests.init_data import boxes, coarsened, globe, projected, realizations, run_init, two_terabytes


def test_a_global_grid_with_precipitation(tmp_path, capsys):
    globe().to_zarr(tmp_path / "fine.zarr")
    experiment, text = run_init(tmp_path, "--target", tmp_path / "fine.zarr")
    target = experiment.target
    assert (target.dims, target.geometry, target.periodic) == (["lat", "lon"], "sphere", ["lon"])
    assert set(target.variables) == {"uas", "vas", "pr"}
    assert target.variables["pr"].transform == "log1p"
    assert 1e-6 < target.variables["pr"].scale < 1e-3
    assert target.variables["uas"].odd_along == []
    assert target.variables["vas"].odd_along == ["lat"]
    assert experiment.conditions["coarse"].source is None
    assert experiment.conditions["coarse"].factor == 4
    assert experiment.conditions["static"].variables == ["orog"]
    assert experiment.conditions["position"].features == ["latitude"]
    assert experiment.conditions["calendar"].features == ["local_solar_time"]
    assert experiment.train.augment.roll == ["lon"]
    assert experiment.train.augment.mirror == ["lat"]
    assert (experiment.stages[0].baseline, experiment.stages[0].constraint) == ("coarse", "coarse")
    assert "zeros" in text
    assert "time_bnds: cell bounds" in capsys.readouterr().out


def test_splits_do_not_touch_and_cover_time_in_order(tmp_path):
    ds = globe()
    ds.to_netcdf(tmp_path / "fine.nc")
    split = run_init(tmp_path, "--target", tmp_path / "fine.nc")[0].split
    train, validation, test = (
        np.concatenate([positions(ds, split.dim, *limits) for limits in getattr(split, name)])
        for name in ("train", "validation", "test")
    )
    assert train[0] == 0
    assert test[-1] == ds.sizes["time"] - 1
    assert validation[0] - train[-1] > 1
    assert test[0] - validation[-1] > 1
    assert len(train) > len(test) > len(validation) >= 2


def test_a_projected_grid_with_a_land_mask_and_a_noleap_calendar(tmp_path, capsys):
    projected().to_netcdf(tmp_path / "sea.nc")
    experiment, text = run_init(tmp_path, "--target", tmp_path / "sea.nc")
    target = experiment.target
    assert (target.dims, target.geometry, target.periodic) == (["y", "x"], "plane", [])
    assert list(target.variables) == ["sst"]
    assert "always NaN" in text
    assert "sometimes NaN" in text
    assert experiment.split.train[0][0] == "1990-01-01"
    augment = experiment.train.augment
    assert (augment.roll, augment.mirror) == ([], [])
    assert "calendar" not in experiment.conditions
    assert "noleap" not in capsys.readouterr().err


def test_a_periodic_box_in_several_files_without_time_or_coordinates(tmp_path):
    pattern = boxes(tmp_path)
    experiment, _ = run_init(tmp_path, "--target", pattern, "--dx", "0.5")
    target = experiment.target
    assert target.dims == ["z", "y", "x"]
    assert target.periodic == ["z", "y", "x"]
    assert target.spacing == {"z": 0.5, "y": 0.5, "x": 0.5}
    assert {name: v.odd_along for name, v in target.variables.items()} == {"u": ["x"], "v": ["y"], "w": ["z"]}
    assert experiment.split.dim == "sample"
    assert experiment.split.train == [(0, 7)]
    assert experiment.train.augment.roll == ["z", "y", "x"]
    assert "position" not in experiment.conditions


def test_realizations_times_and_levels(tmp_path, capsys):
    realizations().to_netcdf(tmp_path / "ensemble.nc")
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "ensemble.nc")
    assert experiment.target.dims == ["latitude", "longitude"]
    assert experiment.target.channel_dims == ["plev"]
    assert (experiment.target.geometry, experiment.target.periodic) == ("sphere", [])
    assert experiment.split.dim == "time"
    out = capsys.readouterr().out
    assert "realization 3" in out
    assert "time 20 (2000-01-01 to 2000-01-20)" in out
    assert experiment.train.augment.mirror == []


@pytest.mark.parametrize("chunks", [(1, 512, 512), (500, 64, 64)])
def test_of_two_terabytes_few_chunks_are_read(tmp_path, chunks, monkeypatch):
    path, read = two_terabytes(tmp_path / "huge.zarr", chunks), []
    get = LocalStore.get

    def counted(store, key, *args, **kwargs):
        read.append(key)
        return get(store, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", counted)
    experiment, text = run_init(tmp_path, "--target", path)
    assert 0 < len([key for key in read if key.startswith("t2m/c/")]) < 100  # of two millions
    assert experiment.train.crop == {"y": 256, "x": 256}
    assert experiment.conditions["position"].features == ["fourier"]
    assert experiment.conditions["calendar"].features == ["time_of_day", "day_of_year"]
    assert experiment.train.augment.roll == []
    assert "random windows of the 2048 x 2560 grid" in text
    assert experiment.train.statistics_cases < 30


def test_a_globe_whose_first_column_is_repeated_is_periodic(tmp_path):
    ds = globe(times=8)[["uas"]]
    again = ds.isel(lon=[0]).assign_coords(lon=[360.0])
    xr.concat([ds, again], "lon").to_netcdf(tmp_path / "fine.nc")
    assert run_init(tmp_path, "--target", tmp_path / "fine.nc")[0].target.periodic == ["lon"]


def test_a_part_of_the_target_is_selected(tmp_path):
    globe().to_netcdf(tmp_path / "fine.nc")
    selected = ["--select", "time=2001-01-02/2001-01-04", "--select", "lat=0/90"]
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "fine.nc", *selected)
    assert experiment.target.source.select == {"time": ["2001-01-02", "2001-01-04"], "lat": [0, 90]}
    assert experiment.split.test[0][1] == "2001-01-04T18:00"
    assert experiment.train.augment.mirror == []


def test_static_files_are_named_like_the_target(tmp_path):
    ds = globe()
    ds[["uas"]].to_zarr(tmp_path / "fine.zarr")
    ds[["orog"]].rename(lat="latitude", lon="longitude").to_netcdf(tmp_path / "static.nc")
    experiment, _ = run_init(tmp_path, "--target", tmp_path / "fine.zarr", "--static", tmp_path / "static.nc")
    static = experiment.conditions["static"]
    assert static.variables == ["orog"]
    assert static.source.rename == {"latitude": "lat", "longitude": "lon"}


def test_one_field_alone_is_one_case(tmp_path):
    globe()[["orog"]].to_netcdf(tmp_path / "one.nc")
    experiment, text = run_init(tmp_path, "--target", tmp_path / "one.nc")
    assert experiment.split.dim is None
    assert "IN-SAMPLE" in text


def test_paths_given_relative_stay_relative(tmp_path, monkeypatch):
    globe(times=8).to_netcdf(tmp_path / "fine.nc")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    _, text = run_init(tmp_path / "work", "--target", "fine.nc", "--variables", "vas,uas")
    written = yaml.safe_load(text)
    assert written["target"]["source"]["paths"] == [os.path.join("..", "fine.nc")]
    assert list(written["target"]["variables"]) == ["vas", "uas"]


def test_the_yaml_validates_against_the_schema_beside_it(tmp_path):
    globe().to_netcdf(tmp_path / "fine.nc")
    _, text = run_init(tmp_path, "--target", tmp_path / "fine.nc")
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=experiment.schema.json"
    schema = json.loads((tmp_path / "experiment.schema.json").read_text())
    settings = json.loads(json.dumps(yaml.safe_load(text), default=str))
    jsonschema.Draft202012Validator(schema).validate(settings)
    settings["train"]["stepps"] = 3
    assert not jsonschema.Draft202012Validator(schema).is_valid(settings)


def test_overrides_apply_to_what_init_wrote(tmp_path):
    globe().to_netcdf(tmp_path / "fine.nc")
    run_init(tmp_path, "--target", tmp_path / "fine.nc")
    experiment = load_experiment(
        tmp_path / "experiment.yaml", ["train.steps=100", "stages.denoiser.network.channels=16"]
    )
    assert experiment.train.steps == 100
    assert experiment.stages[0].network.channels == 16


def test_an_existing_yaml_is_kept(tmp_path):
    globe(times=8).to_netcdf(tmp_path / "fine.nc")
    (tmp_path / "experiment.yaml").write_text("mine")
    with pytest.raises(SciffusionError, match=r"(?s)experiment\.yaml exists.*--overwrite"):
        run_init(tmp_path, "--target", tmp_path / "fine.nc")
    assert (tmp_path / "experiment.yaml").read_text() == "mine"
    assert run_init(tmp_path, "--target", tmp_path / "fine.nc", "--overwrite")[0].recipe == "edm"


@pytest.fixture(scope="module")
def ill_matched(tmp_path_factory):
    """A folder with files that do not belong together."""
    folder = tmp_path_factory.mktemp("ill_matched")
    ds, sea = globe(times=8), projected(times=8)
    ds.to_netcdf(folder / "fine.nc")
    later = coarsened(ds, ["uas"], ["lat", "lon"], "sphere", ["lon"], 4)
    later.assign_coords(time=later.time + np.timedelta64(4000, "D")).to_netcdf(folder / "later.nc")
    sea.to_netcdf(folder / "sea.nc")
    away = coarsened(sea, ["sst"], ["y", "x"], "plane", [], 4)
    away.assign_coords(y=away.y + 1e7).to_netcdf(folder / "away.nc")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no target", "--target fine.zarr"]),
        (["--target", "fine.nc", "--variables", "vaas"], ["'vaas'", "did you mean 'vas'"]),
        (["--target", "fine.nc", "--dims", "lat,level"], ["level", "--dims"]),
        (["--target", "fine.nc", "--factor", "1"], ["--factor 1", "above 1"]),
        (["--target", "fine.nc", "--select", "time"], ["--select time", "time=1990/2010"]),
        (["--target", "fine.nc", "--dx", "wide"], ["--dx wide", "--dx 1000"]),
        (["--target", "fine.nc", "--coarse", "fine.nc"], ["no coarser", "--coarse"]),
        (["--target", "fine.nc", "--coarse", "later.nc"], ["do not overlap in time", "same period"]),
        (["--target", "sea.nc", "--coarse", "away.nc"], ["do not overlap along 'y'", "same region"]),
        (["--target", "fine.nc", "--static", "fine.nc"], ["vary along time", "without time"]),
    ],
)
def test_bad_input_is_named_with_its_mend(tmp_path, monkeypatch, ill_matched, arguments, words):
    monkeypatch.chdir(ill_matched)
    with pytest.raises(SciffusionError) as error:
        run_init(tmp_path, *arguments)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "experiment.yaml").exists()


def test_the_schema_is_printed(capsys):
    parser = argparse.ArgumentParser()
    init.add_arguments(parser)
    assert init.run(parser.parse_args(["--schema"])) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["properties"]["train"]["description"]


def test_help_loads_neither_torch_nor_xarray():
    code = "import sys, sciffusion.cli.init; sys.exit(bool({'torch', 'xarray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
