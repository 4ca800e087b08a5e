"""A sentence is said when it is notable and survives the correction over all that was looked at, or with its doubt."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from sciffusion.evaluation import evaluate
from sciffusion.evaluation.verdict.chance import two_sided, two_sided_of_interval
from sciffusion.evaluation.verdict.judge import holm
from sciffusion.evaluation.verdict.spread import spread
from sciffusion.evaluation.verdict.words import apart


def test_holm_rejects_stepwise():
    """0.001 <= 0.01 / 3 and 0.004 <= 0.01 / 2, but 0.2 > 0.01; Bonferroni alone would lose the second."""
    assert holm([0.2, 0.001, 0.004, np.nan], 0.01) == 0.004
    assert holm([0.2, 0.004, 0.5], 0.01) < 0
    assert holm([], 0.01) < 0


def test_chances_are_those_of_student():
    assert float(two_sided(np.array(2.5), np.array(1.0), 9)) == pytest.approx(2 * stats.t.sf(2.5, 9), rel=1e-12)
    assert two_sided_of_interval(1.959964, np.array([0.0, 3.919928]), np.inf) == pytest.approx(0.05, rel=1e-4)
    assert np.isnan(two_sided_of_interval(1.0, np.array([np.nan, np.nan]), 9))


def test_numbers_get_as_many_digits_as_tell_them_apart():
    assert apart(299.31, 299.38) == ("299.3", "299.4")
    assert apart(2.0, 3.0) == ("2.00", "3.00")
    assert apart(1.0, 1.0) == ("1.00000", "1.00000")


@pytest.mark.parametrize(
    ("value", "good", "words"),
    [
        (0.97, True, "Spread matches the error"),
        (0.91, None, "Spread may differ from the error: spread/skill 0.91 [0.8"),
    ],
)
def test_a_departure_within_chance_is_neither_praised_nor_blamed(value, good, words):
    interval = xr.DataArray([[value - 0.08, value + 0.08]], dims=("system", "bound"))
    one = xr.Dataset({"spread_skill": ("system", [value]), "spread_skill_interval": interval, "blocks": 20})
    (finding,) = spread(one)
    assert finding.p > 0.01
    assert finding.otherwise.good is good
    assert finding.otherwise.text.startswith(words)


def forged(cases, rows, factor):
    draws = np.random.default_rng(0).normal(size=(7, cases, rows, rows))
    truth = xr.Dataset({"a": (("time", "y", "x"), draws[0])})
    return xr.Dataset({"a": (("member", "time", "y", "x"), factor * draws[1:])}), truth


def test_a_departure_of_unknown_error_is_said_with_that_doubt_and_blames_nobody():
    evaluation = evaluate(*forged(2, 3, 0.3), brief=True)
    assert any("Under-dispersive" in one and "how sure this is" in one for one in evaluation.verdicts["a"])
    assert "under-dispersive" not in evaluation.faults["a"]


def test_the_sentence_of_a_scale_has_its_wavelengths_and_its_interval():
    ensemble, truth = forged(30, 32, 1.0)
    smooth = (ensemble + ensemble.roll(x=1) + ensemble.roll(x=-1)) / 3
    found = evaluate(smooth, truth, periodic=["y", "x"], brief=True)
    assert any(
        one.startswith("Under-dispersive at wavelengths below") and "spread/skill 0." in one and "[0." in one
        for one in found.verdicts["a"]
    )
