"""Noise that hangs together in time is a first-order autoregressive process, whichever of its cases are drawn."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import cases_of
from sciffusion.fields.coherence import SMALL, Coherence
from sciffusion.noise import NoiseKey, normal


def series(periods=6, freq="6h", calendar="standard"):
    times = xr.date_range(
        "2001-02-27", periods=periods, freq=freq, calendar=calendar, use_cftime=calendar != "standard"
    )
    return xr.Dataset({"t": (("time", "x"), np.zeros((periods, 2)))}, {"time": times})


def coherence(text, data):
    return Coherence.parse(text, cases_of(data, ("x",)), [data])


def covariance(weights, lag):
    return sum(one * two for one, two in zip(weights, weights[lag:], strict=False))


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9, 0.99])
def test_covariance_is_that_of_the_truncated_process(rho):
    weights = Coherence("time", rho, 3600).weights
    last = len(weights) - 1
    assert rho == 0 or rho**last < SMALL <= rho ** (last - 1)
    assert covariance(weights, 0) == pytest.approx(1, abs=1e-14)
    for lag in range(min(last, 20)):
        exact = rho**lag * (1 - rho ** (2 * (last + 1 - lag))) / (1 - rho ** (2 * (last + 1)))
        assert covariance(weights, lag) == pytest.approx(exact, abs=1e-13)
        assert covariance(weights, lag) == pytest.approx(rho**lag, abs=SMALL)


def noise(case, seed=0):
    """What a stage draws for a case."""
    keys = [(weight, NoiseKey(seed, labels, 0)) for weight, labels in case.past]
    return sum(weight * normal(key, (40000,)).astype(float) for weight, key in keys)


def test_noise_has_unit_variance_and_the_correlation_asked_for():
    data = series()
    found = coherence("0.8", data)
    drawn = [noise(found.applied(case)) for case in cases_of(data, ("x",))]
    assert np.var(drawn, axis=1) == pytest.approx(1, abs=0.03)  # sd of a variance of 40000 values: 0.007
    assert np.corrcoef(drawn)[0] == pytest.approx(0.8 ** np.arange(6), abs=0.02)  # sd of a correlation: 0.005


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_a_case_has_the_same_noise_whatever_else_is_drawn(calendar):
    data = series(calendar=calendar)
    every, few = cases_of(data, ("x",)), cases_of(data.isel(time=[5, 1]), ("x",))
    found = coherence("0.5/6h", data)
    assert found == coherence("0.5/6h", data.isel(time=[5, 1])) == coherence("0.5", data)
    assert [found.applied(case).past for case in few] == [found.applied(every[i]).past for i in (5, 1)]


def test_without_correlation_it_is_the_independent_noise():
    case = cases_of(series(), ("x",))[3]
    found = coherence("0", series())
    assert found.applied(case).past == ((1.0, case.labels),)
    assert str(found).startswith("none")  # what evaluation looks for


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_innovations_are_keyed_by_the_labels_of_earlier_cases(calendar):
    """The calendar decides which day comes before March."""
    data = series(calendar=calendar)
    every = cases_of(data, ("x",))
    past = coherence("0.5", data).applied(every[5]).past
    assert [labels for _, labels in past[:6]] == [case.labels for case in every[5::-1]]


def test_a_length_of_time_is_where_the_correlation_is_one_over_e():
    assert coherence("12h", series()).rho == pytest.approx(np.exp(-0.5), abs=1e-11)
    assert coherence("12h/3h", series()).rho == pytest.approx(np.exp(-0.25), abs=1e-11)


def test_lead_times_hang_together_rather_than_start_times():
    data = series().expand_dims(lead=np.array([0, 6, 12], "timedelta64[h]").astype("timedelta64[ns]"))
    found = coherence("0.9", data)
    assert found.dim == "lead"
    assert found.step == 6 * 3600


@pytest.mark.parametrize(
    ("text", "data", "what"),
    [
        ("1", series(), "a correlation of 1"),
        ("-0.2", series(), "a correlation of -0.2"),
        ("0.999", series(), "a correlation of 0.999"),
        ("long", series(), "no length of time"),
        ("0.9", series().drop_vars("time"), "cases without times"),
        ("0.9", series(4, "MS"), "not a whole number of"),
        ("0.9/4h", series(), "not a whole number of 04:00:00"),
        ("0.9", series(1), "one time only"),
    ],
)
def test_what_has_no_meaning_is_explained(text, data, what):
    with pytest.raises(SciffusionError, match=what):
        coherence(text, data)
