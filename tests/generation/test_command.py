"""The command line of generation: what is asked for is what is made, and said."""

import json

import numpy as np
import pytest
import xarray as xr

from sciffusion import cli
from sciffusion.cli import main
from sciffusion.cli.generate import parse_members
from sciffusion.cli.inspect import _ranges
from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.generation.heldout import open_conditions, selection
from tests.generation.fake import FakeEmulator, conditions


@pytest.fixture
def emulator(monkeypatch, tmp_path):
    """A fake emulator that `load` returns, with conditions in coarse.nc; the current folder is empty otherwise."""
    fake = FakeEmulator()
    fake.folders = []
    monkeypatch.setattr("sciffusion.emulator.load", lambda folder: fake.folders.append(folder) or fake)
    monkeypatch.chdir(tmp_path)
    conditions().to_netcdf("coarse.nc")
    return fake


def command(text):
    return main(text.split())


@pytest.mark.parametrize("size", ["0", "-3"])
def test_no_items_per_call_are_refused_before_a_store_is_begun(emulator, capsys, tmp_path, size):
    assert command(f"generate RUN --conditions coarse.nc --output e.zarr --device cpu --batch-size={size}") == 2
    assert f"a batch size of {size}\n  -> give 1 or more" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["coarse.nc"]


@pytest.mark.parametrize("name", ["e.zip", "e.h5", "E.GRIB"])
def test_a_name_of_another_format_is_refused(emulator, capsys, name):
    assert command(f"generate RUN --conditions coarse.nc --output {name} --device cpu") == 2
    assert "choose NAME.zarr or NAME.nc" in capsys.readouterr().err


def test_generate_makes_what_is_asked_for(emulator, capsys):
    text = "generate RUN --conditions coarse.nc --select time=2001-01-02/2001-01-03 --members 2,5-6 --seed 4"
    assert command(f"{text} --output e.zarr --steps 5 --solver heun --device cpu") == 0
    assert capsys.readouterr().out == "e.zarr\n"
    ds = open_ensemble("e.zarr")
    assert ds.member.values.tolist() == [2, 5, 6]
    assert [str(time) for time in ds.time.values] == ["2001-01-02 00:00:00", "2001-01-03 00:00:00"]
    identity = json.loads(ds.attrs["sciffusion_identity"])
    assert identity["seed"] == 4
    assert (identity["sampler"]["steps"], identity["sampler"]["solver"]) == (5, "heun")


def test_options_with_several_values_may_be_given_several_times(emulator):
    text = "generate RUN --conditions coarse.nc --select time=2001-01-02/2001-01-03 --members 1"
    assert command(f"{text} --select time=2001-01-01 --output e.zarr --device cpu") == 0, "the last one counts per dim"
    assert open_ensemble("e.zarr").sizes["time"] == 1
    both = "--rename u=wind --rename v=other"
    parsed = cli._parser("generate").parse_args(f"generate RUN --output e.zarr {both}".split())
    assert parsed.rename == ["u=wind", "v=other"]


@pytest.mark.parametrize("name", ["e.zarr", "e.nc"])
def test_an_existing_output_of_other_settings_is_refused(emulator, capsys, name):
    text = f"generate RUN --conditions coarse.nc --members 2 --device cpu --output {name}"
    assert command(text) == 0
    assert command(f"{text} --seed 1") == 2
    assert name in capsys.readouterr().err
    assert command(f"{text} --seed 1 --overwrite") == 0
    assert json.loads(open_ensemble(name).attrs["sciffusion_identity"])["seed"] == 1


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(emulator, capsys):
    text = "generate RUN --conditions coarse.nc --members 3 --device cpu --batch-size 2 --output e.zarr"
    emulator.fail_after = 4
    assert command(text) == 130
    assert "the same command" in capsys.readouterr().err
    emulator.fail_after = None
    assert command(text) == 0
    assert len(emulator.drawn) == 12


def test_a_baseline_is_an_emulator_of_the_run(emulator, tmp_path, capsys):
    (tmp_path / "RUN/baselines/linear").mkdir(parents=True)
    text = "generate RUN --conditions coarse.nc --members 2 --device cpu --output e.zarr --baseline"
    assert command(f"{text} cubic") == 2
    assert "it has linear" in capsys.readouterr().err
    assert command(f"{text} linear") == 0
    assert [str(folder) for folder in emulator.folders] == ["RUN/baselines/linear", "RUN"]


def test_without_conditions_a_run_without_experiment_is_an_error(emulator, capsys):
    assert command("generate RUN --output e.zarr") == 2
    assert "give --conditions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "members"),
    [("16", 16), ("0,3", [0, 3]), ("3-5", [3, 4, 5]), ("0-1,7", [0, 1, 7]), ("4,", None), ("x", None)],
)
def test_members_are_a_count_or_numbers(text, members):
    if members is None:
        with pytest.raises(SciffusionError, match="--members"):
            parse_members(text)
    else:
        assert parse_members(text) == members


def test_selections_follow_the_type_of_the_coordinate():
    ds = conditions().expand_dims(scenario=["ssp1", "ssp5"], year=[2001, 2002], depth=3)
    chosen = selection(
        ["time=2001-01-02/", "year=2002", "scenario=ssp1,ssp5", "depth=0/1"], {"a": xr.Dataset(), "b": ds}
    )
    assert chosen == {
        "time": slice("2001-01-02", None),
        "year": 2002,
        "scenario": ["ssp1", "ssp5"],
        "depth": slice(0, 1),
    }


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_a_date_stands_for_all_times_in_it(calendar):
    time = xr.date_range("2040-12-31", periods=6, freq="6h", calendar=calendar, use_cftime=calendar != "standard")
    ds = xr.Dataset({"t": ("time", np.arange(6))}, {"time": time})
    assert ds.sel(selection(["time=2040"], ds)).t.values.tolist() == [0, 1, 2, 3]
    assert ds.sel(selection(["time=2041-01-01"], ds)).t.values.tolist() == [4, 5]


@pytest.mark.parametrize(
    ("text", "what"), [("tme=3", "the dims are time, x, y"), ("time", "no such dimension"), ("x=a", "not a number")]
)
def test_impossible_selections_are_explained(text, what):
    with pytest.raises(SciffusionError, match=what):
        selection([text], conditions())


def test_conditions_come_from_one_dataset_or_by_name(tmp_path):
    conditions().to_netcdf(tmp_path / "a.nc")
    xr.Dataset({"co2": ("time", np.arange(4.0))}, {"time": np.arange(4)}).to_netcdf(tmp_path / "b=1.nc")
    assert set(open_conditions([str(tmp_path / "a.nc")])) == {"coarse"}
    by_name = open_conditions([f"coarse={tmp_path / 'a.nc'}", f"forcing={tmp_path / 'b=1.nc'}"])
    assert set(by_name) == {"coarse", "forcing"}
    assert set(by_name["forcing"]) == {"co2"}
    with pytest.raises(SciffusionError, match="mixes"):
        open_conditions([str(tmp_path / "a.nc"), f"forcing={tmp_path / 'b=1.nc'}"])
    assert set(open_conditions([str(tmp_path / "a.nc")], {"coarse": "t2m"})) == {"t2m"}


def test_inspect_says_what_is_there_and_what_is_missing(emulator, capsys):
    emulator.fail_after = 4
    assert command("generate RUN --conditions coarse.nc --members 0,1,2,7 --device cpu --batch-size 2 -o e.zarr") == 130
    capsys.readouterr()
    assert command("inspect e.zarr --verify") == 0
    text = capsys.readouterr().out
    for line in (
        "members: 0-2, 7 (4)",
        "cases: 4 time",
        "complete: 4 of 16 items; 0 whole members",
        "  member 7: 3 of 4 cases missing",
        "    model: abc",
        "  seed: 0",
        "verified: all 4 complete items agree with their checksums",
    ):
        assert line in text.splitlines()


def test_inspect_finds_damage(emulator, tmp_path, capsys):
    assert command("generate RUN --conditions coarse.nc --members 2 --device cpu -o e.zarr") == 0
    chunk = tmp_path / "e.zarr/u/c/1/2/0/0"
    chunk.write_bytes(b"?" + chunk.read_bytes()[1:])
    capsys.readouterr()
    assert command("inspect e.zarr") == 0
    assert command("inspect e.zarr --verify") == 1
    assert "DAMAGED case 2, member 1: u/c/1/2/0/0 is damaged" in capsys.readouterr().out
    assert command("inspect e.zarr --verify --json") == 1
    entry = json.loads(capsys.readouterr().out)
    assert entry["faults"] == [{"case": 2, "member": 1, "what": "u/c/1/2/0/0 is damaged"}]
    assert command("generate RUN --conditions coarse.nc --members 2 --device cpu -o e.zarr") == 0
    assert command("inspect e.zarr --verify") == 0


def test_inspect_shows_a_netcdf_ensemble_and_refuses_anything_else(emulator, tmp_path, capsys):
    assert command("generate RUN --conditions coarse.nc --members 2 --device cpu -o e.nc") == 0
    assert command("inspect e.nc") == 0
    assert "sciffusion_identity" in capsys.readouterr().out
    assert command("inspect nothing.zarr") == 2
    assert "no such file" in capsys.readouterr().err
    assert command(f"inspect {tmp_path}") == 2


def test_a_store_being_written_can_be_inspected_by_hand(emulator):
    assert command("generate RUN --conditions coarse.nc --members 2 --device cpu -o e.zarr") == 0
    assert EnsembleStore("e.zarr").status().missing == 0


@pytest.mark.parametrize(
    ("numbers", "text"), [([0], "0"), ([0, 1, 2, 7], "0-2, 7"), ([5, 3, 4, 1], "1, 3-5"), ([], "")]
)
def test_ranges_of_members(numbers, text):
    assert _ranges(numbers) == text


def test_statistics_shares_and_a_log_are_asked_for_by_options(emulator, tmp_path, capsys):
    text = "generate RUN --conditions coarse.nc --members 6 --device cpu --keep mean,members:2 -o k.zarr"
    assert command(f"{text} --share 1/2 --log logs/one.log") == 0
    assert emulator.drawn[:3] == [(0, 1), (0, 3), (0, 5)]  # its own first; nobody else came
    drawn = len(emulator.drawn)
    assert command(f"{text} --share 0/2") == 0
    assert len(emulator.drawn) == drawn == 24
    assert open_ensemble("k.zarr").member.values.tolist() == [0, 1]
    assert xr.open_zarr("k.zarr", group="statistics").attrs["members"] == 6
    assert "is complete" in (tmp_path / "logs" / "one.log").read_text()


def test_tiles_precision_and_compilation_are_those_asked_for(emulator, tmp_path):
    options = "--tile 16 --precision bfloat16 --compile always"
    assert command(f"generate RUN --conditions coarse.nc --device cpu --members 1 -o e.zarr {options}") == 0
    made = EnsembleStore(tmp_path / "e.zarr").identity
    assert made["sampler"]["tile"] == 16
    assert (made["execution"]["precision"], made["execution"]["compiled"]) == ("bfloat16", True)
    assert emulator.execution["compile"] is True


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("--share 4", "write I/N"),
        ("--share 4/4", "numbered from 0 to 3"),
        ("--keep median", "write names with commas"),
        ("--deadline 10", "no length of time"),
        ("--deadline 1h --keep mean", "give one of keep and deadline"),
        ("--time-coherence 1.5", "a correlation of 1.5"),
        ("--steps 0", "sciffusion generate: --steps: input should be greater than or equal to 1\n  -> see"),
        ("--tile 2", "sciffusion generate: --tile: input should be greater than or equal to 8\n  -> see"),
    ],
)
def test_options_without_sense_are_explained(emulator, tmp_path, capsys, option, what):
    assert command(f"generate RUN --conditions coarse.nc --device cpu -o e.zarr {option}") == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "e.zarr").exists()
