"""The family table's script at toy size: rows are made once, with numbers that belong together; what fails is told."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import sciffusion as sf

ROOT = Path(__file__).parents[1]
SMALL = ["--set", "stages.0.network.channels=8", "--set", "stages.0.network.multipliers=[1,2]"]


def script(folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "families.py"), "--work", str(folder / "work")]
    command += ["--out", str(folder / "out"), "--keep", str(folder / "kept"), "--device", "cpu", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_rows_are_made_once_and_failures_cost_the_others_nothing(tmp_path):
    # forecast needs a state before, which independent draws do not have
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "ect,forecast,edm", "--jobs", "2", *SMALL)
    assert "grf-forecast-0: failed" in printed
    failed = json.loads((tmp_path / "out" / "failed" / "grf-forecast-0.json").read_text())
    assert failed["why"].startswith("SciffusionError")
    assert "Traceback" in (tmp_path / "out" / "logs" / "grf-forecast-0.txt").read_text()

    row, student = (json.loads((tmp_path / "out" / f"grf-{name}-0.json").read_text()) for name in ("edm", "ect"))
    assert (row["problem"], row["recipe"], row["seed"], row["members"], row["cases"]) == ("grf", "edm", 0, 4, 4)
    assert (row["calls_per_member"], student["calls_per_member"]) == (20, 2)
    assert row["crps_ratio"] > 1  # nothing beats the exact posterior by more than chance, a toy least of all
    assert row["yardstick_ralsd"] < row["ralsd"]
    assert row["crps_ratio"] == pytest.approx(row["crps"] / row["exact_crps"])
    assert row["exact_crps"] == pytest.approx(0.217, rel=0.15)  # of any four truths; in expectation it is the floor
    assert row["yardstick_crps"] == pytest.approx(row["exact_crps"], rel=0.1)  # four draws of it
    assert row["training_steps"] == {"denoiser": 90}
    assert row["spectra"]["truth"][0] > 10 * row["spectra"]["truth"][-1]
    with xr.open_dataset(tmp_path / "out" / "grf-edm-0.nc") as shown:
        assert shown["member"].sizes == {"member": 2, "y": 64, "x": 64}
        means = shown["truth"].coarsen(y=8, x=8).mean().values
        assert shown["coarse"].values == pytest.approx(means, abs=2e-3)  # three digits are kept

    assert script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm,ect", *SMALL) == ""
    assert "| edm | " in script(tmp_path, "--table")


@pytest.mark.slow
def test_a_kept_emulator_teaches_where_its_run_is_gone(tmp_path):
    script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm", *SMALL)
    with_run = sf.load(tmp_path / "work" / "runs" / "grf-edm-0")
    (tmp_path / "work").rename(tmp_path / "gone")
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "progressive", *SMALL)
    assert "| progressive | " in printed
    restored = sf.load(tmp_path / "work" / "runs" / "grf-edm-0")
    apart = max(
        float((a - b).detach().abs().max() / (1e-6 + b.detach().abs().max()))
        for a, b in zip(restored.stage.parameters(), with_run.stage.parameters(), strict=True)
    )
    assert 0 < apart < 2**-8  # 16-bit floats


def test_no_row_is_begun_that_would_not_end_in_time(tmp_path):
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm,flow", "--jobs", "2", "--until", "20")
    assert printed.count("not begun") == 2
    assert not list((tmp_path / "out").glob("*.json"))


def row(recipe, seed=0, **changed):
    """A row as the script writes it, with numbers that tell it from others."""
    k = np.arange(1, 33).tolist()
    power = (np.arange(1, 33.0) ** -2).tolist()
    return {
        "problem": "grf", "recipe": recipe, "seed": seed, "crps": 0.218, "crps_ratio": 1.004, "spread_skill": 0.99,
        "crps_ratio_interval": [1.0, 1.008], "exact_crps": 0.2175,
        "ralsd": 0.1, "yardstick_crps": 0.2171, "yardstick_ralsd": 0.08,
        "yardstick_spread_skill": 1.0, "coarse_rms": 0.01, "calls_per_member": 20.0, "seconds_per_member": 0.002,
        "members": 50, "cases": 64, "minutes": 2.0, "training_minutes": 2.0, "training_steps": {"denoiser": 5000},
        "training_cases": 8192, "parameters": 4_500_000, "reconstruction_floor": None, "rain": None,
        "device": "GPU", "date": "2026-11-25", "commit": "abc1234",
        "spectra": {"wavenumber": k, "truth": power, "members": power, "yardstick": power},
    } | changed  # fmt: skip


def test_the_page_says_what_reaches_its_aims_and_what_is_missing(tmp_path):
    results = tmp_path / "results"
    (results / "failed").mkdir(parents=True)
    made = [row("edm", crps_ratio=1.004), row("edm", seed=1, crps_ratio=1.006), row("dit", crps_ratio=1.03)]
    made += [row("ect", crps_ratio=1.03, spread_skill=0.9, training_minutes=0.51), row("latent", crps_ratio=1.2)]
    fields = xr.Dataset({"truth": (("y", "x"), np.eye(16)), "member": (("member", "y", "x"), np.ones((2, 16, 16)))})
    for entry in made:
        name = f"grf-{entry['recipe']}-{entry['seed']}"
        (results / f"{name}.json").write_text(json.dumps(entry))
        fields.to_netcdf(results / f"{name}.nc")
    failure = {"problem": "grf", "recipe": "flow", "seed": 0, "why": "the time was over", "date": "2026-11-25"}
    (results / "failed" / "grf-flow-0.json").write_text(json.dumps(failure))
    command = [sys.executable, str(ROOT / "benchmarks" / "families.py"), "--out", str(results), "--page", str(tmp_path)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    page = (tmp_path / "families.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in lines] == ["recipe", "edm", "dit", "ect", "latent"]  # the best first
    assert "| edm | 1.005 ± 0.001 | 0.990 |" in page
    assert "(expected 0.2175)" in page
    assert "±0.004" in page
    assert "Aims reached: `edm`." in page
    assert "- `dit` misses: CRPS within 2 %." in page
    assert "- `ect` misses: spread/skill within 3 % of the teacher's." in page  # 1.03 is within 3 % of 1.005
    assert "- `latent` misses: CRPS within 10 %." in page
    text = " ".join(page.split())
    assert "`flow`: failed on 2026-11-25 (the time was over)" in text
    assert "comes before its own; `ect` of this page had a quarter of the time." in text
    assert "`forecast`: needs the state before" in text
    assert "`corrdiff`" in text.split("Missing: ")[1].split(": not run yet")[0]
    for picture in ("families-grf.png", "families-grf-spectra.png"):
        assert f"](images/{picture})" in page
        image = plt.imread(tmp_path / "images" / picture)
        assert image[..., :3].std() > 0.05  # something is drawn


@pytest.mark.parametrize(
    ("name", "grid", "begin"), [("gcm", (8, 16), "2000-03-03"), ("gcm-window", (4, 8, 16), "2000-03-02")]
)
def test_the_gcm_is_a_problem_of_states_and_one_of_windows(tmp_path, monkeypatch, name, grid, begin):
    """The first state serves as the one before the second; a window begins with it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from families_problems import gcm_path

    from sciffusion.config import load_experiment
    from sciffusion.datasets.pairs import open_experiment

    with pytest.raises(FileNotFoundError, match="--gcm"):
        gcm_path(name, None, tmp_path / name)
    run = gcm_run()
    run.to_netcdf(tmp_path / "run.nc")
    experiment = load_experiment(gcm_path(name, tmp_path / "run.nc", tmp_path / name))
    data = open_experiment(experiment)
    assert data.grid.shape == grid
    first = data.target.isel(time=0)["u_wind"].values.reshape(-1, 8, 16)
    np.testing.assert_array_equal(first, run["u_wind"].values[60 : 60 + len(first)])  # without the spin-up
    days = {split: {str(case.labels[-1])[:10] for case in cases} for split, cases in data.cases.items()}
    assert min(days["train"]) == begin
    assert max(days["train"]) < min(days["validation"]) < min(days["test"])


def gcm_run():
    names = {"u_wind": "m s-1", "v_wind": "m s-1", "temperature": "K", "normalized_surface_pressure": "1"}
    rng = np.random.default_rng(0)
    coords = {
        "time": np.datetime64("2000-01-02", "ns") + np.arange(400) * np.timedelta64(1, "D"),
        "lat": ("lat", np.linspace(-78.75, 78.75, 8), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(16) * 22.5, {"units": "degrees_east"}),
    }
    fields = {
        name: (("time", "lat", "lon"), rng.standard_normal((400, 8, 16)).astype("f4"), {"units": units})
        for name, units in names.items()
    }
    return xr.Dataset(fields, coords)


def test_the_coarse_field_of_fine_data_is_its_means(tmp_path, monkeypatch):
    """Where a run has no coarse file, its members are held against the means of the truth, not against the truth."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from families_scores import coarse_of

    from sciffusion import config
    from sciffusion.conditioners.coarse import CoarseField
    from tests.conditioners.conftest import training_on

    grid = ("lat", "lon")
    training = training_on(gcm_run().isel(time=slice(3)), grid, {"u_wind": {}, "temperature": {}}, periodic=("lon",))
    settings = config.CoarseField(variables=["u_wind", "temperature"], factor=4)
    reader = CoarseField.build("coarse", settings, None, training)
    times = list(training.data.time.values[:2])
    found = coarse_of(reader, {"coarse": training.data}, {"time": times}, ["u_wind", "temperature"])
    assert found.sizes == {"time": 2, "lat": 2, "lon": 4}
    for number, case in enumerate(training.cases[:2]):
        expected = reader.coarse(training.data, case)
        np.testing.assert_allclose(found["u_wind"].values[number], expected[0], rtol=1e-6)
        np.testing.assert_allclose(found["temperature"].values[number], expected[1], rtol=1e-6)


def judged(problem, *made):
    import families_verdict

    groups = {}
    for entry in made:
        groups.setdefault(entry["recipe"], []).append(entry)
    return families_verdict.judgement(problem, groups)


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.usefixtures("benchmarks")
def test_without_an_exact_answer_spectra_are_held_against_the_one_step_network():
    made = [
        row(name, problem="kolmogorov", ralsd=ralsd) for name, ralsd in (("edm", 0.3), ("crps", 2.0), ("latent", 2.5))
    ]
    made[2]["reconstruction_floor"] = {
        "autoencoder": {"u": {"crps": 0.02, "ralsd": 2.2}, "v": {"crps": 0.04, "ralsd": 2.4}}
    }
    text = "\n".join(judged("kolmogorov", *made))
    assert "Aims reached: `edm`." in text
    assert "- `latent` misses: RALSD below that of `crps`." in text
    assert "`latent`: its autoencoder alone, decode(encode(x)), has a CRPS of 0.03 and 2.30 dB" in text
    assert judged("kolmogorov", made[0]) == [""]  # nothing to hold it against


@pytest.mark.usefixtures("benchmarks")
def test_precipitation_is_held_against_the_truths():
    good = {"wet": 0.103, "true_wet": 0.1, "high": 0.0046, "true_high": 0.005, "least": 0.0, "true_least": 0.0}
    bad = {**good, "wet": 0.094, "high": 0.0056, "least": -1e-6}
    text = "\n".join(judged("era5-tp", row("precipitation", problem="era5-tp", rain=good),
                            row("edm", problem="era5-tp", rain=bad)))  # fmt: skip
    assert "Aims reached: `precipitation`." in text
    assert "- `edm` misses: wet area within 5 %; 99.9 % quantile within 10 %; nothing negative." in text
    assert (
        "`precipitation`: area with 0.1 mm or more 0.103 (truths: 0.1), 99.9 % quantile 0.0046 (truths: 0.005) m"
        in text
    )


@pytest.mark.usefixtures("benchmarks")
def test_rows_of_a_problem_are_over_the_best_yardstick(tmp_path):
    import families_table

    rain = {"problem": "era5-tp", "exact_crps": None, "crps_ratio": 0.8, "crps_ratio_interval": [[0.7, 0.9]]}
    other = {"problem": "grf", "crps_ratio": 1.0, "yardstick_crps": 0.5}  # over the exact answer
    made = {"a": row("edm", **rain, yardstick_crps=0.05), "b": row("precipitation", **rain, yardstick_crps=0.04)}
    for name, entry in (made | {"c": row("edm", **other)}).items():
        (tmp_path / f"{name}.json").write_text(json.dumps(entry))
    entries = families_table.read(tmp_path)
    assert [entry["crps_ratio"] for entry in entries] == pytest.approx([1.0, 0.8, 1.0])
    assert entries[0]["crps_ratio_interval"] == [pytest.approx([0.875, 1.125])]


@pytest.mark.usefixtures("benchmarks")
def test_rankings_need_two_standard_deviations_of_the_seeds():
    seeds = [row("edm", seed=seed, crps_ratio=ratio) for seed, ratio in enumerate((1.000, 1.001, 1.002))]
    text = judged("grf", *seeds, row("dit", crps_ratio=1.0028), row("flow", crps_ratio=1.0032))[-1]
    assert text == "3 seeds of `edm` differ by 0.0010 (sd). Within two of these of its CRPS: `dit`."


@pytest.mark.usefixtures("benchmarks")
def test_the_wet_area_and_the_high_quantile_count_cells_by_their_area():
    import families_scores

    truth = xr.Dataset({"tp": (("time", "y", "x"), np.array([[[0.0, 2e-4], [5e-5, 1e-3]]]))})
    members = xr.Dataset(
        {"tp": (("member", "time", "y", "x"), np.array([[[[0, 0], [0, 1e-3]]], [[[0, 3e-4], [-1e-9, 0]]]]))}
    )
    found = families_scores.rain(members, truth, np.array([[1.0, 1.0], [3.0, 3.0]]))
    assert (found["true_wet"], found["wet"]) == pytest.approx((4 / 8, 4 / 16))
    assert (found["true_high"], found["high"], found["least"]) == (1e-3, 1e-3, -1e-9)
    rare = families_scores.rain(members, truth, np.array([[1e4, 1e4], [1.0, 1.0]]))
    assert (rare["true_high"], rare["high"]) == (2e-4, 3e-4)


@pytest.mark.usefixtures("benchmarks")
def test_scales_that_the_truths_do_not_have_are_no_error():
    """A spectral model's fields have rounding alone beyond its truncation."""
    import families_table

    spectra = {"wavenumber": [1, 2, 3], "truth": [1.0, 0.1, 1e-11], "members": [np.e, 0.1 * np.e, 1e-3]}
    assert families_table.log_power(row("window", problem="gcm-window", spectra=spectra)) == pytest.approx(1.0)


def test_what_a_row_has_no_value_of_is_left_empty():
    import families_table

    cells = families_table.line([row("forecast", coarse_rms=None)]).split(" | ")
    assert cells[list(families_table.COLUMNS).index("coarse rms") + 1] == ""
