"""Settings: every mistake is reported with its line and its mend; recipes lie under, overrides on top."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sciffusion import recipes, yamltext
from sciffusion.config import Experiment, json_schema, load_experiment
from sciffusion.errors import SciffusionError
from sciffusion.recipes.writer import render

TEXT = """\
version: 1
target:
  source: {paths: [fine.zarr, "https://example.org/a.zarr"]}
  variables:
    u: {odd_along: [lat]}
  dims: [lat, lon]
  periodic: [lon]
conditions:
  coarse: {kind: coarse, variables: [u], factor: 4}
split:
  dim: time
  train: [[2000-01-01, 2000-02-01], [2001, 2001]]
stages:
  - name: denoiser
    baseline: coarse
    network: {channels: 32}
train:
  steps: 100
"""


def written(tmp_path, old="", new=""):
    assert old in TEXT
    path = tmp_path / "experiment.yaml"
    path.write_text(TEXT.replace(old, new, 1))
    return path


def test_paths_are_relative_to_the_yaml_and_urls_are_left_alone(tmp_path):
    experiment = load_experiment(written(tmp_path))
    assert experiment.target.source.paths == [str(tmp_path / "fine.zarr"), "https://example.org/a.zarr"]
    assert experiment.output == str(tmp_path / "run")


def test_dates_and_years_stay_labels(tmp_path):
    assert load_experiment(written(tmp_path)).split.train == [("2000-01-01", "2000-02-01"), (2001, 2001)]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("steps: 100", "stepps: 100", 18, ["train.stepps", "unknown setting", "did you mean 'steps'"]),
        ("steps: 100", "steps: many", 18, ["train.steps", "integer"]),
        ("channels: 32", "channels: 2", 16, ["stages.denoiser.network.channels", "greater"]),
        (
            "baseline: coarse",
            "baseline: corse",
            15,
            ["'corse' is no coarse condition or previous state", "known: coarse"],
        ),
        ("kind: coarse", "kind: corse", 9, ["conditions.coarse", "kind", "'static'"]),
        ("kind: coarse, ", "", 9, ["conditions.coarse", "kind is missing", "'static'"]),
        ("factor: 4", "fctor: 4", 9, ["conditions.coarse.fctor", "did you mean 'factor'"]),
        (", factor: 4", "", 9, ["neither a source nor a factor", "factor: 4"]),
        ("[u], factor", "[w], factor", 9, ["'w' is no target variable", "the target has u"]),
        ("variables: [u], ", "", 9, ["conditions.coarse.variables", "missing"]),
        ("periodic: [lon]", "periodic: [x]", 7, ["'x' is none of the grid dims", "lat, lon"]),
        ("  periodic: [lon]", "  dims: [lon]", 7, ["'dims' is given twice"]),
        ("{odd_along: [lat]}", "{transform: bounded}", 5, ["target.variables.u", "add bounds: [low, high]"]),
        ("  dims: [lat, lon]\n", "", 2, ["target.dims", "missing"]),
        ("version: 1", "learning_rate: 1", 1, ["it belongs to TrainSettings"]),
        ("dims: [lat, lon]", "dims: [lat, lon", 7, ["not valid YAML"]),
    ],
)
def test_a_mistake_is_named_with_its_line_and_mend(tmp_path, old, new, line, words):
    with pytest.raises(SciffusionError) as error:
        load_experiment(written(tmp_path, old, new))
    assert f"experiment.yaml, line {line}:" in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_every_fault_has_a_mend(tmp_path):
    with pytest.raises(SciffusionError) as error:
        load_experiment(written(tmp_path, "steps: 100", "steps: 0"))
    assert error.value.mend


def test_an_unknown_recipe_suggests_the_nearest(tmp_path):
    with pytest.raises(SciffusionError, match=r"(?s)'edn'.*did you mean 'edm'"):
        load_experiment(written(tmp_path, "version: 1", "recipe: edn"))


def test_a_missing_yaml_is_named(tmp_path):
    with pytest.raises(SciffusionError, match=r"(?s)none\.yaml: no such file.*sciffusion init"):
        load_experiment(tmp_path / "none.yaml")


def test_overrides_reach_sections_lists_and_new_entries(tmp_path):
    overrides = [
        "train.steps=7",
        "stages.denoiser.network.channels=16",
        "stages.0.sampler.steps=3",
        "train.crop={lat: 8}",
    ]
    experiment = load_experiment(written(tmp_path), overrides)
    assert experiment.train.steps == 7
    assert experiment.stages[0].network.channels == 16
    assert experiment.stages[0].sampler.steps == 3
    assert experiment.train.crop == {"lat": 8}


def test_overrides_apply_to_a_loaded_experiment_and_leave_it_as_it_was(tmp_path):
    experiment = load_experiment(written(tmp_path))
    assert load_experiment(experiment, ["train.seed=3"]).train.seed == 3
    assert experiment.train.seed == 0
    assert load_experiment(experiment) is experiment


@pytest.mark.parametrize(
    ("override", "word"),
    [("train.steps", "no '='"), ("stages.other.name=x", "no entry 'other'"), ("version.a=1", "not a section")],
)
def test_a_wrong_override_is_named(tmp_path, override, word):
    with pytest.raises(SciffusionError, match=word) as error:
        load_experiment(written(tmp_path), [override])
    assert override in str(error.value)


def test_the_recipe_lies_under_the_users_settings(tmp_path):
    recipe = recipes.load("edm")
    experiment = load_experiment(written(tmp_path, "    network: {channels: 32}", "    noise: {p_std: 1.7}"))
    noise = experiment.stages[0].noise
    assert noise.p_std == 1.7
    assert noise.sigma_min == recipe["stages"][0]["noise"]["sigma_min"]
    assert experiment.train.learning_rate == float(recipe["train"]["learning_rate"])
    assert experiment.train.steps == 100


def test_merging_keeps_the_recipes_row_and_appends_new_entries():
    under = {"stages": [{"name": "a", "x": 1}, {"name": "b", "y": {"z": 1, "w": 2}}], "k": [1, 2]}
    over = {"stages": [{"name": "b", "y": {"z": 5}}, {"name": "c"}], "k": [3]}
    assert recipes.merge(under, over) == {
        "stages": [{"name": "a", "x": 1}, {"name": "b", "y": {"z": 5, "w": 2}}, {"name": "c"}],
        "k": [3],
    }


def test_every_recipe_takes_the_experiment_of_another_and_says_what_it_is_for(tmp_path):
    for name, line in recipes.names().items():
        about = recipes.about(name)
        assert "\n" not in line + about["suits"]
        assert about["cost"]["calls"] > 0
        experiment = load_experiment(written(tmp_path), recipe=name)
        assert experiment.recipe == name
        assert experiment.stages[0].baseline == ("previous" if name == "forecast" else "coarse")
        path = tmp_path / "again.yaml"
        path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        assert load_experiment(path) == experiment


def test_every_setting_is_described():
    schema = json_schema()
    for table, entry in {"Experiment": schema, **schema["$defs"]}.items():
        for name, field in entry["properties"].items():
            assert field.get("description") or name == "kind", f"{table}.{name}"


def test_an_experiment_survives_its_own_yaml(tmp_path):
    experiment = load_experiment(written(tmp_path))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    assert load_experiment(tmp_path / "again.yaml") == experiment
    assert Experiment.model_validate(experiment.model_dump()) == experiment


def test_reading_settings_needs_neither_torch_nor_xarray():
    code = "import sys, sciffusion.config; sys.exit(bool({'torch', 'xarray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LABELS = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LABELS
SETTINGS = st.dictionaries(
    st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LABELS, inner, max_size=4)),
    max_size=5,
)


@given(SETTINGS)
@settings(max_examples=60)
def test_what_the_writer_writes_is_read_back(data):
    assert (yamltext.parse(render(data, {})) or {}) == data


def test_comments_stand_at_their_entries_and_change_nothing():
    data = {"a": {"b": [{"name": "x", "c": 1}, {"name": "y", "c": 2}], "d": "2001-01-01"}, "e": "long " * 40}
    comments = {"a": "first", "a.b.1.c": "inner", "a.b.1.name": "n", "a.d": "a day", "e": "a long one"}
    text = render(data, comments, ["head"])
    assert yamltext.parse(text) == data
    lines = text.splitlines()
    assert lines[0] == "# head"
    assert "a:  # first" in lines
    assert "      c: 2  # inner" in lines
    assert "    - name: y  # n" in lines
    assert lines[lines.index("# a long one") + 1].startswith("e: ")
