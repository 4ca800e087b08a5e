"""The real emulator and the commands: what is stored is what `sample` draws, for the model and for its baselines."""

import json
import resource
import shutil

import numpy as np
import pytest
import xarray as xr

from sciffusion import model_folder
from sciffusion.cli import main
from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import open_experiment
from sciffusion.emulator import Emulator, load
from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.fields.ensemble import open_ensemble
from sciffusion.generation import generate, held_out
from sciffusion.stages.baselines import build_baselines
from sciffusion.stages.build import build_stage
from sciffusion.training.run import _card
from tests.tiny import tiny_data, tiny_experiment, write_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose network is untrained."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = tiny_experiment(tiny_data(folder / "data.nc"), folder / "run")
    (folder / "run").mkdir()
    experiment = load_experiment(write_experiment(folder / "run/experiment.yaml", settings))
    data = open_experiment(experiment)
    stage, card = build_stage(experiment.stages[0], experiment, data), _card(experiment, data, folder / "run", 1.0)
    Emulator([stage], card).save(folder / "run/emulator")
    for name, baseline in build_baselines(experiment, data, stage).items():
        Emulator([baseline], card | {"recipe": name}).save(folder / "run/baselines" / name)
    return folder / "run"


def command(run, output, text=""):
    return main(["generate", str(run), "--output", str(output), "--device", "cpu", "--quiet", *text.split()])


def fields(path):
    return open_ensemble(path).load()[["a", "b"]]


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_the_stored_ensemble_is_the_sampled_one(run, tmp_path, suffix):
    path = tmp_path / f"e.{suffix}"
    assert command(run, path, "--members 3 --seed 2") == 0
    conditions, cases = held_out(run)
    sampled = load(run).sample(conditions, 3, cases=cases, seed=2, device="cpu")
    xr.testing.assert_equal(open_ensemble(path).load()[["a", "b"]], sampled)
    assert open_ensemble(path).a.attrs["units"] == "m s-1"


def test_members_do_not_depend_on_batches_or_on_which_others_are_made(run, tmp_path):
    assert command(run, tmp_path / "all.zarr", "--members 4 --batch-size 3") == 0
    assert command(run, tmp_path / "one.zarr", "--members 2, --batch-size 1") == 2  # not a number
    assert command(run, tmp_path / "one.zarr", "--members 2-2 --batch-size 1 --select time=2020-01-05") == 0
    one = fields(tmp_path / "one.zarr")
    whole = fields(tmp_path / "all.zarr").sel(member=[2], time=one.time)
    for name in one:
        np.testing.assert_allclose(one[name], whole[name], rtol=0, atol=1e-5 * float(whole[name].std()))


def test_of_all_cases_only_those_of_the_test_split_count_as_held_out(run, tmp_path):
    """Validation cases chose the weights, so they are no evidence of skill."""
    assert command(run, tmp_path / "all.zarr", "--members 2 --all-cases") == 0
    ensemble, truth = open_ensemble(tmp_path / "all.zarr").load(), xr.open_dataset(run.parent / "data.nc")
    used = ensemble.training_case
    days = {"2020-01-02T06": True, "2020-01-04T00": True, "2020-01-04T06": True, "2020-01-04T18": False}
    assert {day: bool(used.sel(time=day).values.all()) for day in days} == days
    tests = ensemble.sel(time=slice("2020-01-04T18", "2020-01-05T18"))
    evaluation = evaluate(ensemble.drop_vars("training_case").assign_coords(training_case=used), truth)
    held = evaluation.scores["case"].values.tolist()
    assert not set(held) & set(evaluation.in_sample["case"].values.tolist())
    assert len(held) == int((~used).sum())
    assert sum(label in " ".join(held) for label in tests.time.dt.strftime("%Y-%m-%dT%H").values) == tests.sizes["time"]


@pytest.mark.parametrize("name", ["interpolation", "linear", "climatology"])
def test_baselines_are_ordinary_ensembles_of_the_same_cases(run, tmp_path, name):
    assert command(run, tmp_path / "model.zarr", "--members 2") == 0
    assert command(run, tmp_path / "baseline.zarr", f"--members 2 --baseline {name}") == 0
    model, baseline = fields(tmp_path / "model.zarr"), fields(tmp_path / "baseline.zarr")
    assert baseline.a.dims == model.a.dims
    assert baseline.time.equals(model.time)
    assert bool(np.isfinite(baseline.a).all())


def test_adding_members_leaves_the_first_bytes_alone(run, tmp_path):
    path = tmp_path / "e.zarr"
    assert command(run, path, "--members 3 --batch-size 2") == 0
    before = {file: file.read_bytes() for file in (path / "a/c").rglob("0") if file.is_file()}
    assert command(run, path, "--members 5") == 0
    assert before
    assert all(file.read_bytes() == data for file, data in before.items())
    assert fields(path).sizes["member"] == 5


def test_a_run_that_is_interrupted_ends_with_the_same_bytes(run, tmp_path, monkeypatch):
    conditions, cases = held_out(run)
    draws = Emulator.draws

    def interrupted(self, *args, **kwargs):
        for count, part in enumerate(draws(self, *args, **kwargs)):
            if count == 3:
                raise KeyboardInterrupt
            yield part

    options = {"cases": cases, "batch_size": 2, "device": "cpu", "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(Emulator, "draws", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate(load(run), conditions, tmp_path / "e.zarr", 3, **options)
    for name in ("e.zarr", "whole.zarr"):
        generate(load(run), conditions, tmp_path / name, 3, **options)
    assert chunks(tmp_path / "e.zarr") == chunks(tmp_path / "whole.zarr")


def chunks(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("c/*/**/*") if file.is_file()}


def test_rounded_members_say_how_far_they_are_from_the_coarse_field(run, tmp_path):
    def coarse(path):
        return fields(path).coarsen(x=4, y=4).mean()

    assert command(run, tmp_path / "exact.zarr", "--members 2") == 0
    for name, options in {"a": "--round-bits 7", "b": "--pack b=200/360 --chunks y=8"}.items():
        path = tmp_path / f"{name}.zarr"
        assert command(run, path, f"--members 2 {options}") == 0
        misfit = float(np.abs(coarse(path)[name] - coarse(tmp_path / "exact.zarr")[name]).max())
        said = open_ensemble(path)[name].attrs["coarse_misfit"]
        assert said == pytest.approx(misfit, rel=0.02, abs=1e-4)
        assert said > 2e-4
    assert command(run, path, "--members 3") == 2, "another storage is another ensemble"
    assert command(run, path, "--members 3 --pack b=200,360") == 2


def test_what_was_converted_is_said_once_and_not_at_all_when_quiet(run, tmp_path, capsys):
    coarse = held_out(run)[0]["coarse"]
    coarse.assign(a=(3.6 * coarse.a).assign_attrs(units="km h-1")).to_netcdf(tmp_path / "new.nc")
    line = f"generate {run} --conditions {tmp_path}/new.nc --members 2 --steps 1 --select time=2020-01-05T00:00"
    assert main([*line.split(), "--output", str(tmp_path / "e.zarr")]) == 0
    said = capsys.readouterr().err
    assert said.count("coarse: a converted from km h-1 to m s-1") == 1
    assert "coarse: coarse" not in said
    assert main([*line.split(), "--output", str(tmp_path / "quiet.zarr"), "--quiet"]) == 0
    assert "INFO" not in capsys.readouterr().err


def test_case_coordinates_keep_their_attributes_but_not_the_name_of_their_bounds(run):
    emulator, coarse = load(run), held_out(run)[0]["coarse"].isel(time=[0])
    coarse["time"].attrs |= {"bounds": "time_bnds", "long_name": "valid time"}
    assert emulator.template(coarse)["time"].attrs == {"long_name": "valid time"}


def test_cases_are_selected_under_the_name_of_their_dim_in_either_data(run):
    emulator, coarse = load(run), held_out(run)[0]["coarse"]
    theirs = coarse.rename(time="t").assign_coords(t=("t", coarse.time.values, {"standard_name": "time"}))
    wanted = slice("2020-01-05T00:00", "2020-01-05T06:00")
    for dim in ("t", "time"):
        check = emulator.check(theirs, {dim: wanted})
        assert [(case.dims, str(case.values["time"])[:13]) for case in check.cases] == [
            (("time",), "2020-01-05T00"),
            (("time",), "2020-01-05T06"),
        ]
    with pytest.raises(SciffusionError, match="cases along 'tme'"):
        emulator.check(coarse, {"tme": wanted})


def forged(run, folder, change):
    """The run's model with another description, whose digest is right again."""
    shutil.copytree(run / "emulator", folder)
    description = json.loads((folder / "model.json").read_text())
    change(description["stages"][0])
    (folder / "model.json").write_text(json.dumps(description | {"digest": model_folder.digest(description)}))
    return folder


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda stage: stage["settings"]["network"].update(channels=200_000), "its weights are smaller"),
        (lambda stage: stage["codec"]["grid"].update(shape=[10**7, 10**7]), "fields of .* GiB"),
    ],
)
def test_a_model_that_declares_more_than_its_weights_is_refused_before_it_takes_memory(run, tmp_path, change, what):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SciffusionError, match=what):
        load(forged(run, tmp_path / "model", change))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_100_000  # KiB: the limit


def test_inspect_shows_the_model_card(run, capsys):
    assert main(["inspect", str(run)]) == 0
    text = capsys.readouterr().out
    assert "stage denoiser (denoiser)" in text
    assert "conditioned on coarse, clock" in text
    assert "recipe: edm" in text


def test_cases_without_labels_keep_their_place_when_some_are_selected(run):
    emulator = load(run / "baselines/interpolation")
    conditions, _ = held_out(run)
    unlabelled = conditions["coarse"].drop_vars("time")
    some = emulator.sample(unlabelled, 2, cases={"time": [3, 5]}, seed=1)
    assert some["time"].values.tolist() == [3, 5]
    whole = emulator.sample(unlabelled, 2, cases={"time": [0, 3, 5]}, seed=1)
    for name in some.data_vars:
        np.testing.assert_array_equal(some[name], whole[name].sel(time=[3, 5]))
