"""Cases: labels, selection, alignment, calendars."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import cases_of, select

CORE = ("y", "x")


def series(times, **more):
    values = np.arange(len(times), dtype=np.float32)
    field = xr.DataArray(values, dims="time", coords={"time": times}) * xr.DataArray(np.ones((2, 2)), dims=CORE)
    return field.astype(np.float32).to_dataset(name="t").assign_attrs(more)


def test_labels_are_encoded_alike_on_every_machine():
    times = np.array(["2000-01-01T06:00", "2000-01-02T06:00"], "datetime64[ns]")
    assert [case.labels for case in cases_of(series(times), CORE)] == [
        ("2000-01-01T06:00:00",),
        ("2000-01-02T06:00:00",),
    ]
    coarser = series(times.astype("datetime64[s]"))
    assert [case.labels for case in cases_of(coarser, CORE)] == [case.labels for case in cases_of(series(times), CORE)]


def test_every_other_dim_is_a_case_dim_and_the_last_is_fastest():
    ds = xr.Dataset(
        {"t": (("scenario", "lead", "number", "y", "x"), np.zeros((2, 2, 2, 3, 3)))},
        coords={"scenario": ["low", "high"], "lead": [0.5, 1.0]},
    )
    cases = cases_of(ds, CORE)
    assert [case.labels for case in cases[:3]] == [("low", 0.5, 0), ("low", 0.5, 1), ("low", 1.0, 0)]
    assert len(cases) == 8
    assert select(ds, cases[-1])["t"].dims == CORE


def test_without_case_dims_there_is_one_case_with_the_empty_label():
    cases = cases_of(xr.Dataset({"t": (CORE, np.zeros((2, 2)))}), CORE)
    assert [case.labels for case in cases] == [()]


def test_duplicate_labels_are_an_error():
    times = np.array(["2000-01-01", "2000-01-01"], "datetime64[ns]")
    with pytest.raises(SciffusionError, match="occurs twice"):
        cases_of(series(times), CORE)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_model_calendars_have_labels_and_align(calendar):
    times = xr.date_range("2000-02-27", periods=4, freq="D", calendar=calendar, use_cftime=True)
    ds = series(times)
    cases = cases_of(ds, CORE)
    third = {"noleap": "2000-03-01", "360_day": "2000-02-29", "standard": "2000-02-29"}[calendar]
    assert cases[2].labels == (f"{third}T00:00:00",)
    assert float(select(ds, cases[2])["t"][0, 0]) == 2.0
    every_other = ds.isel(time=[0, 2, 3])
    assert float(select(every_other, cases[1], "interpolate")["t"][0, 0]) == 1.0
    assert float(select(every_other, cases[1], "previous")["t"][0, 0]) == 0.0


def test_interpolation_weighs_by_distance_and_does_not_extrapolate():
    times = np.array(["2000-01-01T00", "2000-01-01T12"], "datetime64[ns]")
    asked = np.array(["2000-01-01T03", "2000-01-01T12", "2000-01-01T13"], "datetime64[ns]")
    cases = cases_of(series(asked), CORE)
    blended = select(series(times), cases[0], "interpolate")["t"]
    assert float(blended[0, 0]) == 0.25
    assert blended.dtype == np.float32
    assert float(select(series(times), cases[1], "interpolate")["t"][0, 0]) == 1.0
    assert float(select(series(times), cases[2], "previous")["t"][0, 0]) == 1.0
    with pytest.raises(SciffusionError, match="nothing for time"):
        select(series(times), cases[2], "interpolate")
    with pytest.raises(SciffusionError, match="nothing for time"):
        select(series(times), cases[0], "exact")


def test_dims_that_the_data_lack_are_passed_over():
    case = cases_of(series(np.array(["2000-01-01"], "datetime64[ns]")), CORE)[0]
    static = xr.Dataset({"h": (CORE, np.ones((2, 2)))})
    assert select(static, case)["h"].shape == (2, 2)


def test_a_date_that_the_other_calendar_lacks_is_named():
    thirtieth = xr.date_range("2000-02-30", periods=1, calendar="360_day", use_cftime=True)
    case = cases_of(series(thirtieth), CORE)[0]
    for times in (
        np.array(["2000-02-01", "2000-03-02"], "datetime64[ns]"),
        xr.date_range("2000-02-01", periods=60, calendar="noleap", use_cftime=True),
    ):
        with pytest.raises(SciffusionError, match="2000-02-30T00:00:00 does not exist"):
            select(series(times), case, "interpolate")


def test_labels_do_not_depend_on_precision():
    single = [case.labels for case in cases_of(series(np.float32([0.1, 6.0])), CORE)]
    assert single == [case.labels for case in cases_of(series(np.array([0.1, 6.0])), CORE)] == [(0.1,), (6.0,)]
    hours = np.array([21600, 1000000, 1000001], "timedelta64[s]")
    assert len({case.labels for case in cases_of(series(hours), CORE)}) == 3


def test_cases_of_one_file_are_found_in_another_in_any_order():
    times = np.array(["2000-01-01", "2000-01-02", "2000-01-03"], "datetime64[ns]")
    cases, shuffled = cases_of(series(times), CORE), series(times).isel(time=[2, 0, 1])
    assert [float(select(shuffled, case)["t"][0, 0]) for case in cases] == [0.0, 1.0, 2.0]
    assert float(select(shuffled, cases[1], "previous")["t"][0, 0]) == 1.0
