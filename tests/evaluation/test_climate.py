"""Whole years of daily data: indices are those of the functions, levels those of the law; what is left out says so."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from sciffusion.evaluation import climate_indices, evaluate
from sciffusion.evaluation.climate import TRUTH, Climate, Yearly, climate, whole_years
from sciffusion.evaluation.climate_results import PERIODS, climate_maps, climate_table
from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.grids import cells_of
from sciffusion.evaluation.layout import Layout
from sciffusion.evaluation.measures.extremes import gev_levels
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.report import render
from sciffusion.evaluation.report.gather import climate_maps_of
from sciffusion.evaluation.source import Source

DIMS = ("time", "y", "x")


@pytest.fixture(scope="module")
def days():
    """Members and truth of a year, 40 days more, and gaps in a corner of the truth."""
    draws = np.random.default_rng(0).gamma(0.4, 6, size=(4, 405, 2, 3)).astype(np.float32)
    draws[0, 100:130, 0, 0] = np.nan
    coords = {"time": xr.date_range("2001-01-01", periods=405, use_cftime=False), "y": [0.0, 1.0], "x": [0.0, 1.0, 2.0]}
    truth = xr.Dataset({"pr": (DIMS, draws[0], {"units": "mm d-1"}), "other": (DIMS, draws[0])}, coords)
    members = (("member", *DIMS), draws[1:])
    return xr.Dataset({"pr": (*members, {"units": "mm d-1"}), "other": members}, coords), truth


def looked_at(ensemble, truth, forced=False):
    layout = Layout.of(ensemble, ["pr", "other"])
    grid = cells_of(ensemble, layout.grid)
    systems = {"ours": Source.of("ours", ensemble, layout, grid)}
    panel = Panel(systems, Source.of("truth", truth, layout, grid, deterministic=True), Domain.of(grid))
    return climate(panel, layout.fields(ensemble, ["pr", "other"]), layout.case_list(ensemble), forced=forced)


def test_indices_are_those_of_the_function_on_the_days_that_the_truth_has(days):
    ensemble, truth = days
    found = looked_at(ensemble, truth).fields["pr"]
    assert found.years == 1
    whole = slice("2001-01-01", "2001-12-31")
    there = truth.pr.notnull()
    for name, ds in (("ours", ensemble.where(there)), (TRUTH, truth.expand_dims("member"))):
        expected = climate_indices(ds.sel(time=whole)[["pr"]], "pr").sel(year=2001)
        assert set(expected) == {"rx1day", "sdii", "cdd", "cwd"}
        for index, array in expected.items():
            np.testing.assert_allclose(found.values[name][index][:, 0], array.transpose("member", "y", "x"), rtol=1e-6)
    np.testing.assert_array_equal(found.values["ours"]["highest"], found.values["ours"]["rx1day"])
    assert found.units["rx1day"] == "mm"


def test_a_large_ensemble_is_read_in_part_and_the_page_says_of_what(days, monkeypatch):
    monkeypatch.setattr("sciffusion.evaluation.climate.CELLS", {2: 2})
    monkeypatch.setattr("sciffusion.evaluation.climate.MEMBERS", 2)
    found, whole = looked_at(*days), days[0].isel(time=slice(365))
    assert found.excerpt == "cells: one in 2 along x; members: the first 2 of ours"
    highest = found.fields["other"].values["ours"]["highest"]
    assert highest.shape == (2, 1, 2, 2)
    there = days[1].other[:365].notnull()
    expected = whole.other.where(there).max("time")[:2, :, ::2]
    np.testing.assert_array_equal(highest[:, 0], expected)
    coarse = climate_table(found, ["ours"], ["pr", "other"])
    plain = evaluate(*(ds.isel(time=slice(3)) for ds in days))
    scores = plain.scores.assign_coords(system=["ours"]).merge(coarse, combine_attrs="drop_conflicts")
    page = render(replace(plain, scores=scores.assign_attrs(plain.scores.attrs, **coarse.attrs)))
    assert f"Of an excerpt of the data: {found.excerpt}." in page


def test_whole_years_of_runs_without_labels_are_read_for_each_run(days):
    """A dim that is neither a date nor labelled: its positions are the cases."""
    ensemble, truth = (xr.concat([ds, 2 * ds], "run").transpose(..., "y", "x") for ds in days)
    both = looked_at(ensemble, truth).fields["other"].values["ours"]["highest"]
    once = looked_at(*days).fields["other"].values["ours"]["highest"]
    np.testing.assert_array_equal(both, np.concatenate([once, 2 * once], axis=1))


def test_runs_of_members_that_are_no_trajectories_are_left_out_unless_forced(days):
    ensemble, truth = days[0].assign_attrs(time_coherence="none: noise is independent"), days[1]
    found = looked_at(ensemble, truth)
    assert {"rx1day", "sdii"} <= set(found.fields["pr"].values["ours"])
    assert not {"cdd", "cwd"} & set(found.fields["pr"].values["ours"])
    assert {"cdd", "cwd"} <= set(found.fields["pr"].values[TRUTH])
    assert "CDD and CWD of ours: its members are not trajectories" in found.reasons[0]
    forced = looked_at(ensemble, truth, forced=True)
    assert {"cdd", "cwd"} <= set(forced.fields["pr"].values["ours"])
    assert forced.reasons == ()


@pytest.mark.parametrize(("calendar", "step", "count", "years"), [
    ("standard", "D", 731, [365, 366]),
    ("360_day", "D", 400, [360]),
    ("standard", "h", 24 * 366, []),
    ("standard", "D", 300, []),
])  # fmt: skip
def test_whole_years_are_those_with_all_their_days(calendar, step, count, years):
    time = xr.date_range("2003-01-01", periods=count, freq=step, calendar=calendar, use_cftime=calendar == "360_day")
    ds = xr.Dataset({"a": (("time", "x"), np.zeros((count, 2)))}, {"time": time, "x": [0.0, 1.0]})
    assert [len(year) for year in whole_years(Layout.of(ds, ["a"]).case_list(ds)[::-1])] == years
    if years:
        whole = whole_years(Layout.of(ds, ["a"]).case_list(ds)[::-1])[0]
        assert [case.position["time"] for case in whole] == sorted(case.position["time"] for case in whole)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2])
def test_levels_by_l_moments_are_those_of_the_law(shape):
    """1.5 % of the scale is three standard errors of the 50-year level's mean over 200 series of 2000 maxima."""
    maxima = stats.genextreme.rvs(-shape, 30, 5, size=(2000, 200), random_state=np.random.default_rng(1))
    exact = stats.genextreme.isf(1 / np.array(PERIODS), -shape, 30, 5)
    np.testing.assert_allclose(gev_levels(maxima, PERIODS).mean(axis=1), exact, atol=0.015 * 5)
    maxima[3, 0] = np.nan
    assert np.isnan(gev_levels(maxima, PERIODS)).all(axis=0).tolist() == [True] + [False] * 199


def drawn(years, members=4, seed=2):
    """Yearly extremes of 6 x 8 cells with known laws; the ensemble's are 3 higher."""
    generator = np.random.default_rng(seed)

    def values(size, shift):
        highest = stats.genextreme.rvs(0.1, 30 + shift, 4, size=(size, years, 6, 8), random_state=generator)
        return {"highest": highest, "lowest": -highest, "rx1day": highest}

    own = {TRUTH: values(1, 0.0), "ensemble": values(members, 3.0)}
    return Yearly(own, np.ones((6, 8)), {"rx1day": "mm"}, years)


def test_levels_and_indices_have_intervals_that_hold_the_law():
    table = climate_table(Climate({"pr": drawn(30)}), ["ensemble"], ["pr"]).isel(variable=0)
    exact, held = stats.genextreme.isf(1 / np.array(PERIODS), 0.1, 30, 4), []
    for name, shift in (("truth", 0), ("members", 3)):
        level, ends = table[f"cell_return_level_{name}"], table[f"cell_return_level_{name}_interval"]
        for extreme, sign in (("highest", 1), ("lowest", -1)):
            low, high = (ends.sel(extreme=extreme, bound=bound).values.ravel() for bound in ("lower", "upper"))
            np.testing.assert_allclose(level.sel(extreme=extreme).values.ravel(), sign * (exact + shift), atol=1)
            held += list((low < sign * (exact + shift)) & (sign * (exact + shift) < high))
            assert (high - low < 2).all()  # the standard error of a 50-year level is 0.5
    assert np.mean(held) >= 0.8
    index = table.sel(climate_index="rx1day")
    mean = stats.genextreme.mean(0.1, 30, 4)
    low, high = index.climate_index_truth_interval.values
    assert low < mean < high
    low, high = index.climate_index_members_interval.values[0]
    assert low < mean + 3 < high


def test_under_ten_years_levels_and_intervals_are_withheld():
    table = climate_table(Climate({"pr": drawn(9)}), ["ensemble"], ["pr"]).isel(variable=0)
    assert np.isnan(table.cell_return_level_truth).all()
    assert np.isfinite(table.climate_index_truth.sel(climate_index="rx1day"))
    assert np.isnan(table.climate_index_truth_interval).all()
    assert str(table.year_interval_method.values) == "withheld: 9 whole year(s), 10 are needed"


def test_the_page_shows_table_maps_and_what_was_left_out():
    draws = np.random.default_rng(3).normal(size=(4, 3, 6, 8))
    truth = xr.Dataset({"pr": (DIMS, draws[0], {"units": "mm d-1"})})
    ensemble = xr.Dataset({"pr": (("member", *DIMS), draws[1:], {"units": "mm d-1"})})
    plain = evaluate(ensemble, truth)
    page = render(plain)
    assert "Left out: indices and return levels by cell: they need whole years of daily data with dates." in page
    assert list(climate_maps_of(plain, "pr")) == []
    seen = Climate({"pr": drawn(12)}, ("CDD of ensemble: for a reason",))
    table = climate_table(seen, ["ensemble"], ["pr"])
    maps = climate_maps(seen, "ensemble", ["y", "x"])
    assert set(maps) == {f"pr/climate {what}{name}" for what in ("", "error ") for name in ("rx1day", "highest")}
    error = maps["pr/climate error rx1day"][1]
    assert error.shape == (6, 8)
    assert error.mean() == pytest.approx(3, abs=0.5)
    whole = replace(plain, scores=plain.scores.merge(table).assign_attrs(table.attrs), maps=plain.maps.assign(maps))
    page = render(whole)
    assert "<b>Rx1day</b> highest precipitation of one day <small>[mm; pr]</small>" in page
    assert "Left out: CDD of ensemble: for a reason." in page
    assert [shown.name for shown in climate_maps_of(whole, "pr")] == [
        *("climate_Rx1day truth", "climate_Rx1day members"),
        *("climate_highest in 20 years truth", "climate_highest in 20 years members"),
    ]
    assert "Return levels, highest value of a cell" in page
