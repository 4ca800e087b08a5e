"""Every fault is named, and a perfect ensemble is cleared: the promise of the verdict, on problems with exact draws."""

import pytest

from tests.evaluation.forgeries import FORGERIES, judge
from tests.evaluation.problems import PROBLEMS

SEEDS = 100
ENOUGH = 95


def named(problem, fault, seeds):
    """For how many of ``seeds`` the fault is named; "perfect": for how many nothing is."""
    forge, names = FORGERIES.get(fault, (None, set()))
    found = [judge(PROBLEMS[problem](), seed, forge) for seed in seeds]
    return sum(bool(one & names) if names else not one for one in found)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("fault", ["perfect", *FORGERIES])
def test_fault_is_named(problem, fault):
    """One seed each, of those that the slow test counts."""
    assert named(problem, fault, range(1)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("fault", ["perfect", *FORGERIES])
def test_fault_is_named_in_95_of_100_seeds(problem, fault, record_property):
    count = named(problem, fault, range(SEEDS))
    record_property("named", count)
    assert count >= ENOUGH
