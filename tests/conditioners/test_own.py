"""A condition of a user's own class: found by its entry point, kept by the model, shown in the docs as it is."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sciffusion import config, registry
from sciffusion.conditioners.base import load_conditioner
from sciffusion.config import load_experiment
from sciffusion.errors import SciffusionError
from tests.conditioners.conftest import globe, training_on
from tests.tiny import tiny_data, tiny_experiment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/examples/slope.py"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "slope-0.1.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text("[sciffusion.conditioners]\nslope = slope:Slope\n")
    (tmp_path / "slope.py").write_text(FILE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("slope", None)


def test_the_page_shows_the_file_as_it_is():
    assert f"```python\n{FILE.read_text()}```" in (ROOT / "docs/howto-own-conditioner.md").read_text()


def test_it_is_found_by_name_and_travels_with_the_model(installed):
    kind = registry.get("conditioners", "slope")
    data = globe()
    training = training_on(data)
    settings = config.CustomCondition(kind="slope", options={"variable": "u"})
    conditioner = kind.build("slope", settings, data.isel(time=0), training)
    slopes = conditioner.prepare(None, training.cases[0])["channels"]
    np.testing.assert_allclose(slopes, np.gradient(data.u.values[0]), atol=1e-5)
    again = load_conditioner(*conditioner.state(), training.grid)
    np.testing.assert_array_equal(again.prepare(None, training.cases[0])["channels"], slopes)
    assert conditioner.parity("latitude").tolist() == [-1, 1]


def test_its_settings_are_checked_and_an_unknown_kind_is_still_an_error(installed, tmp_path):
    base = tiny_experiment(tiny_data(tmp_path / "d.nc"), tmp_path / "run")
    base["conditions"]["slope"] = {"kind": "slope", "options": {"variable": "u"}}
    found = load_experiment(base).conditions["slope"]
    assert isinstance(found, config.CustomCondition)
    base["conditions"]["slope"] = {"kind": "slope", "variable": "u"}
    with pytest.raises(SciffusionError, match="unknown setting"):
        load_experiment(base)
    base["conditions"]["slope"] = {"kind": "slop"}
    with pytest.raises(SciffusionError, match="kind is missing or unknown"):
        load_experiment(base)
