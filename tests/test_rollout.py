"""Forecasts: a member's states are its own answers, and nothing else."""

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.cli import main
from sciffusion.emulator import Emulator, load
from sciffusion.errors import SciffusionError
from sciffusion.rollout import forecast
from sciffusion.training import train
from tests.stages.toy import batch_of, toy


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("forecast"), "forecast", "conditions.previous.lags=[1, 2]")
    train(made.experiment, progress=False)
    return made


def test_a_case_learns_its_change_from_the_state_before(run):
    stages, data = run.build()
    batch = batch_of(run.experiment, data, stages["denoiser"], 3)
    codec = stages["denoiser"].codec
    first = data.cases["train"][0]
    assert first.indices["time"] == 2  # two states before it
    now, before = (data.target.isel(time=i).a.values for i in (2, 1))
    z = codec.of_training_case(0, len(data.cases["train"])).mean[0]
    np.testing.assert_allclose(batch["z"][0, 0] * codec.sd[0] + z, now - before, atol=1e-5)
    channels = batch["inputs"]["previous"]["channels"][0]
    np.testing.assert_allclose(channels[0], before, atol=1e-6)
    np.testing.assert_allclose(channels[2], data.target.isel(time=0).a.values, atol=1e-6)


def test_noise_is_added_in_training_only_and_its_level_is_told(run):
    conditioner = load(run.folder).stage.conditioners["previous"]
    inputs = {"channels": torch.zeros(64, 4, 16, 24), "vector": torch.zeros(64, 1)}
    keep = torch.ones(64, dtype=torch.bool)
    clean = conditioner.eval()(inputs, keep)
    noisy = conditioner.train()(inputs, keep)
    assert float(clean.vector.abs().max()) == 0
    sds = (noisy.channels - clean.channels).std(dim=(1, 2, 3))
    torch.testing.assert_close(sds, noisy.vector[:, 0], rtol=0.1, atol=1e-3)
    assert 0.1 < float(noisy.vector.max()) <= 0.2


def test_members_are_trajectories_of_their_own(run):
    emulator = load(run.folder)
    start = xr.open_dataset(run.experiment.target.source.paths[0]).isel(time=slice(0, 5))
    three = forecast(emulator, start, 3, 3, device="cpu", batch_size=2)
    assert three.a.dims == ("member", "time", "y", "x")
    np.testing.assert_array_equal(np.diff(three.time), np.timedelta64(6, "h"))
    assert three.time.values[0] == start.time.values[-1] + np.timedelta64(6, "h")
    alone = forecast(emulator, start, 3, [2], device="cpu", batch_size=1)
    np.testing.assert_allclose(alone.a[0], three.a[2], atol=1e-4)
    # a member goes on from its own states: the second step alone, from states with the first behind
    longer = xr.concat([start, three.sel(member=1).drop_vars("member").isel(time=[0])[["a", "b"]]], "time")
    again = forecast(emulator, longer, 1, [1], device="cpu", batch_size=2, seed=0)
    assert again.time.values[0] == three.time.values[1]
    assert float(three.a.std("member").min()) > 0
    assert "trajectories" in three.attrs["time_coherence"]


def test_one_step_from_true_states_is_an_ordinary_ensemble(run, tmp_path):
    assert main(["generate", str(run.folder), "--members", "2", "-o", str(tmp_path / "e.zarr"), "--quiet"]) == 0
    truth = run.experiment.target.source.paths[0]
    assert main(["evaluate", str(tmp_path / "e.zarr"), "--reference", truth]) == 0
    baseline = ["--baseline", "persistence", "--members", "2", "-o", str(tmp_path / "p.zarr"), "--quiet"]
    assert main(["generate", str(run.folder), *baseline]) == 0


def test_the_command_line_forecasts(run, tmp_path, capsys):
    out, truth = str(tmp_path / "f.nc"), run.experiment.target.source.paths[0]
    command = ["forecast", str(run.folder), "--initial", truth, "--at", "2020-01-03", "--steps", "2", "--members", "2"]
    assert main([*command, "-o", out, "--device", "cpu"]) == 0
    found = xr.open_dataset(out)
    assert found.sizes["time"] == 2
    assert str(found.time.values[0])[:13] == "2020-01-04T00"
    assert not found.a.encoding["zlib"]  # as plain xarray writes it
    assert main([*command, "-o", out]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "none" / "f.nc")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--members", v) for v in ("0", "3,3", "-2", "5-3")] + [("--steps", "0")]
)
def test_members_and_steps_that_are_none_are_refused_with_what_to_give(run, tmp_path, capsys, option, value):
    options = {"--initial": run.experiment.target.source.paths[0], "--steps": "2", "--device": "cpu", option: value}
    words = [f"{name}={text}" for name, text in options.items()]
    assert main(["forecast", str(run.folder), *words, "-o", str(tmp_path / "f.nc")]) == 2
    what, mend = capsys.readouterr().err.splitlines()
    assert what.startswith("sciffusion forecast: ")
    assert option[2:] in what
    assert mend.startswith("  -> give")
    assert list(tmp_path.iterdir()) == []


def test_an_emulator_that_does_not_look_back_does_not_forecast(tmp_path):
    made = toy(tmp_path, "edm")
    stages, data = made.build()
    with pytest.raises(SciffusionError, match="takes no earlier states"):
        forecast(Emulator(list(stages.values()), {}), data.target, 1)
