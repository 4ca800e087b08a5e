"""Without conditions, a run's own test cases are made, from its YAML or from the card of its model."""

import json

import pytest
import yaml

from sciffusion.errors import SciffusionError
from sciffusion.generation import held_out
from tests.datasets import conftest
from tests.datasets.conftest import settings

folder = conftest.folder

TEST_TIMES = ["2001-01-02T12:00:00", "2001-01-02T18:00:00"]


def write_run(run, experiment, place):
    """Leave the experiment where a run has it, or where a model folder has it."""
    path = run / place
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = experiment.model_dump(mode="json")
    path.write_text(yaml.safe_dump(plain) if path.suffix == ".yaml" else json.dumps({"card": {"experiment": plain}}))


@pytest.mark.parametrize("place", ["experiment.yaml", "emulator/model.json", "model.json"])
def test_the_held_out_cases_are_those_of_the_split(folder, place):
    write_run(folder / "run", settings(folder), place)
    conditions, cases = held_out(folder / "run")
    assert [str(time)[:19] for time in cases["time"]] == TEST_TIMES
    assert set(conditions) == {"coarse", "land", "forcing", "clock", "where"}
    assert conditions["coarse"].sel(cases).sizes["time"] == 2
    assert held_out(folder / "run", all_cases=True)[1] is None


def test_a_split_without_test_cases_is_an_error(folder):
    split = {"train": [["2001-01-01", "2001-01-02"]]}
    write_run(folder / "run", settings(folder, split=split), "experiment.yaml")
    with pytest.raises(SciffusionError, match="no test cases"):
        held_out(folder / "run")


def test_a_run_without_experiment_is_an_error(folder):
    with pytest.raises(SciffusionError, match="holds no experiment"):
        held_out(folder)
