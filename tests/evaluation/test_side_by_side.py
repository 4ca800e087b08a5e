"""Several ensembles at once are what each is alone, and a YAML beside the report makes the same numbers again."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
import yaml

from sciffusion import cli
from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.settings import EvaluationSettings, load_settings, save_settings, validated
from sciffusion.fields.fingerprint import fingerprint


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(3)
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D"),
        "y": ("y", np.arange(16.0), {"units": "km"}),
        "x": ("x", np.arange(20.0), {"units": "km"}),
    }
    draws = np.cumsum(generator.normal(size=(12, 4, 16, 20)), axis=-1).astype(np.float32)
    dims = ("member", "time", "y", "x")
    truth = xr.Dataset({"t": (dims[1:], draws[0], {"units": "K"})}, coords)
    return {
        "truth": truth,
        "small": xr.Dataset({"t": (dims, draws[1:5], {"units": "K"})}, coords),
        "wide": xr.Dataset({"t": (dims, 2 * draws[5:11], {"units": "K"})}, coords),
        "base": xr.Dataset({"t": (dims[1:], draws[11], {"units": "K"})}, coords),
    }


@pytest.fixture(scope="module")
def files(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, ds in data.items():
        ds.to_netcdf(folder / f"{name}.nc")
    data["wide"].to_zarr(folder / "wide.zarr", consolidated=False)
    return folder


def test_side_by_side_equals_separate_evaluations(data):
    both = {name: data[name] for name in ("small", "wide")}
    together = evaluate(both, data["truth"], baselines={"base": data["base"]})
    assert list(together.side_by_side) == ["small", "wide"]
    for name, one in together.side_by_side.items():
        alone = evaluate({name: data[name]}, data["truth"], baselines={"base": data["base"]}).scores
        here = one.scores.sel(system=[name, "base"], baseline=["base"])
        for score in ("crps", "crps_interval", "crps_ratio", "crps_ratio_interval", "spread_skill", "spectral_ratio"):
            xr.testing.assert_allclose(here[score], alone[score], rtol=1e-12)
        ranks = [scores["rank_histogram"].sel(system=name).dropna("rank") for scores in (here, alone)]
        xr.testing.assert_allclose(*ranks)
        assert here.attrs["members"] == alone.attrs["members"] == data[name].sizes["member"]


def test_each_is_compared_with_the_other_in_opposite_directions(data):
    both = {name: data[name] for name in ("small", "wide")}
    together = evaluate(both, data["truth"])
    one, other = (together.side_by_side[name].scores for name in both)
    product = one.crps_ratio.sel(baseline="wide") * other.crps_ratio.sel(baseline="small")
    np.testing.assert_allclose(product, 1)
    assert float(one.crps_ratio.sel(baseline="wide").item()) < 1


def test_names_that_stand_twice_are_refused(data):
    with pytest.raises(SciffusionError, match="a baseline is called 'small'"):
        evaluate({"small": data["small"]}, data["truth"], baselines={"small": data["base"]})


def run(files, *words):
    return cli.main(["evaluate", *(str(files / word) if word.endswith((".nc", ".zarr")) else word for word in words)])


def test_the_yaml_beside_the_report_makes_the_same_numbers_again(files, tmp_path):
    first = [*("small.nc", "wide.zarr", "--reference", "truth.nc", "--baselines"), f"base={files / 'base.nc'}"]
    outputs = ["--report", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json"), "--quiet"]
    assert run(files, *first, "--block", "1", *outputs) == 0
    assert (
        cli.main(["evaluate", "--config", str(tmp_path / "r.yaml"), "--json", str(tmp_path / "again.json"), "--quiet"])
        == 0
    )
    made, again = (json.loads((tmp_path / name).read_text()) for name in ("r.json", "again.json"))
    assert made == again
    assert made["data"]["reference"] == fingerprint([str(files / "truth.nc")])
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["block"] == 1


def test_parts_of_the_cases_join_to_the_whole(files, tmp_path):
    words = ["small.nc", "--reference", "truth.nc", "--quiet", "--no-hashes"]
    states = [str(tmp_path / f"part{i}.npz") for i in range(2)]
    assert run(files, *words, "--json", str(tmp_path / "whole.json")) == 0
    for i, state in enumerate(states):
        assert run(files, *words, "--part", f"{i}/2", "--state", state) == 0
    joined = ["--state", str(tmp_path / "all.npz"), *states, "--memory", "10kB", "--processes", "2"]
    assert run(files, *words, *joined, "--json", str(tmp_path / "joined.json")) == 0
    whole, parts = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "joined"))
    for name, entry in whole["scores"]["data_vars"].items():
        one, other = (np.array(values["data"], dtype=object) for values in (entry, parts["scores"]["data_vars"][name]))
        numbers = np.vectorize(lambda v: isinstance(v, float), otypes=[bool])(one)
        np.testing.assert_allclose(one[numbers].astype(float), other[numbers].astype(float), rtol=1e-9, err_msg=name)


def test_other_data_than_the_yaml_says_are_refused(files, tmp_path, capsys):
    changed = xr.load_dataset(files / "truth.nc") + 1
    changed.to_netcdf(tmp_path / "truth.nc")
    settings = validated(
        {
            "ensembles": {"ensemble": {"paths": [str(files / "small.nc")]}},
            "reference": {"paths": [str(tmp_path / "truth.nc")], "sha256": fingerprint([str(files / "truth.nc")])},
        },
        "test",
    )
    save_settings(settings, tmp_path / "evaluation.yaml")
    assert cli.main(["evaluate", "--config", str(tmp_path / "evaluation.yaml")]) == 2
    assert "reference" in capsys.readouterr().err


def test_what_cannot_be_judged_is_refused_before_the_data_are_read_for_their_fingerprints(
    files, tmp_path, capsys, monkeypatch
):
    def too_early(paths):
        raise AssertionError

    monkeypatch.setattr("sciffusion.fields.fingerprint.fingerprint", too_early)
    words = ["small.nc", "--reference", "truth.nc", "--variables", "absent", "--report", str(tmp_path / "r.html")]
    assert run(files, *words) == 2
    assert "no variable 'absent'" in capsys.readouterr().err


def test_settings_survive_the_yaml_whatever_the_folder(files, tmp_path, monkeypatch):
    settings = EvaluationSettings.model_validate(
        {
            "ensembles": {
                "a": {"paths": [str(files / "small.nc")], "sha256": "0" * 64},
                "b": {"paths": ["s3://b.zarr"]},
            },
            "reference": {"paths": [str(files / "truth.nc")], "rename": {"temperature": "t"}},
            "baselines": {"base": {"paths": [str(files / "base.nc")]}},
            "periodic": [],
            "window": "dct",
            "partial": True,
        }
    )
    save_settings(settings, tmp_path / "evaluation.yaml")
    monkeypatch.chdir(files)
    entries = load_settings(tmp_path / "evaluation.yaml")
    resolved = validated(entries, "test")
    assert resolved.model_dump() == settings.model_dump()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["small.nc"], "needs --reference"),
        (["--reference", "truth.nc"], "needs an ensemble"),
        (["small.nc", "--reference", "truth.nc", "--baselines", "base.nc"], "no '='"),
        (["small.nc", "small.nc", "--reference", "truth.nc"], "two ensembles are called 'small'"),
        (["small.nc", "--reference", "truth.nc", "--report", "missing/r.html"], "does not exist"),
        (["small.nc", "--reference", "truth.nc", "--block", "0"], "block"),
        (["small.nc", "--reference", "truth.nc", "--part", "4/4"], "--part"),
        (["small.nc", "--reference", "truth.nc", "--processes", "0"], "--processes"),
        (["small.nc", "--reference", "truth.nc", "--memory", "much"], "much"),
        (["none.nc", "--reference", "truth.nc"], "no such file"),
    ],
)
def test_wrong_words_end_with_2_before_any_work(files, words, said, capsys):
    assert run(files, *words) == 2
    assert said in capsys.readouterr().err


def test_a_fingerprint_is_of_the_bytes_not_of_the_place(files, tmp_path):
    shutil.copytree(files / "wide.zarr", tmp_path / "copy.zarr")
    assert fingerprint([str(tmp_path / "copy.zarr")]) == fingerprint([str(files / "wide.zarr")])
    chunk = max((p for p in (tmp_path / "copy.zarr").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:-1] + bytes([chunk.read_bytes()[-1] ^ 1]))
    assert fingerprint([str(tmp_path / "copy.zarr")]) != fingerprint([str(files / "wide.zarr")])
