"""The report is one file that says what the scores say; the command writes it."""

import json
import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from matplotlib import image
from matplotlib.text import Text

from sciffusion.cli import evaluate as command
from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.report import render
from sciffusion.evaluation.report.figures import Drawing, figure, styled
from sciffusion.evaluation.report.gather import left_out, scores_of
from sciffusion.evaluation.report.sections import SECTIONS
from sciffusion.evaluation.report.skill import by_case
from sciffusion.evaluation.report.values import returns, tails
from sciffusion.evaluation.scorecard import rows
from sciffusion.evaluation.verdict import number


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(8, "h"),
        "y": ("y", np.arange(24.0), {"units": "km"}),
        "x": ("x", np.arange(30.0), {"units": "km"}),
    }
    draws = np.cumsum(generator.normal(size=(6, 3, 24, 30)), axis=-1)
    truth = xr.Dataset({"t": (("time", "y", "x"), draws[0], {"units": "K"})}, coords)
    ensemble = xr.Dataset({"t": (("member", "time", "y", "x"), draws[1:], {"units": "K"})}, coords)
    return ensemble.assign_attrs(sampler="heun <18 calls>"), truth


@pytest.fixture(scope="module")
def evaluation(data):
    ensemble, truth = data
    return evaluate(ensemble, truth, baselines={"wide & shifted": 2 * ensemble + 3})


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    evaluation.to_html(path)
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects words, table cells and everything that the page would load."""

    def __init__(self):
        super().__init__()
        self.cells, self.loads, self.words, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words.append(data)
        if self.cells and ("td" in self.open[-3:]):
            self.cells[-1] += data

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def test_numbers_of_the_page_are_the_scores(read, evaluation):
    expected = [cell for row in rows(evaluation.scores) for cell in row[2:]]
    shown = [cell.strip() for cell in read.cells]
    assert all(cell in shown for cell in expected)
    assert number(float(evaluation.scores.crps[0, 0])) in " ".join(shown)


def test_every_verdict_is_on_the_page(read, evaluation):
    text = " ".join(read.words)
    assert all(sentence in text for sentence in evaluation.verdicts["t"])


def test_the_page_loads_nothing_from_elsewhere(read, page):
    assert all(link.startswith(("#", "data:")) for link in read.loads)
    assert "<script" not in page
    assert len(page) < 10e6


def test_every_figure_has_a_caption_and_a_description(page):
    figures = re.findall(r"<figure>(.*?)</figure>", page, flags=re.DOTALL)
    assert len(figures) >= 8 + 10
    assert all('aria-label="' in one and "<svg" in one for one in figures)


def test_every_section_says_what_it_shows_and_every_plot_is_drawn_or_accounted_for(page, evaluation):
    one = scores_of(evaluation)["ensemble"].sel(variable="t")
    for section in SECTIONS:
        assert page.count(f'<p class="says">{section.says}</p>') == 1
        missing = [name for names in left_out(evaluation, section).values() for name in names]
        for plot in section.plots:
            assert page.count(escape(plot.caption)) == plot.possible(one)
            assert (plot.name.replace("_", " ") in missing) != plot.possible(one)


def test_what_one_member_cannot_show_is_left_out_with_the_reason(data):
    _, truth = data
    single = evaluate(truth + 1, truth)
    page = render(single)
    assert "Left out: rank histogram" in page
    assert "it needs an ensemble of two or more members" in page


def test_a_brief_evaluation_says_that_it_is_why_figures_are_missing(data):
    ensemble, truth = data
    page = render(evaluate(ensemble, truth, brief=True))
    assert "Left out: rank histogram, spread skill, reliability, roc; a brief evaluation leaves it out" in page


def test_numbers_of_the_page_of_the_json_and_of_the_netcdf_are_one(read, evaluation, tmp_path):
    evaluation.to_json(tmp_path / "all.json")
    evaluation.to_netcdf(tmp_path / "all.nc")
    entries = json.loads((tmp_path / "all.json").read_text())["scores"]["data_vars"]
    cells = [cell.strip() for cell in read.cells]
    with xr.open_dataset(tmp_path / "all.nc") as stored:
        for name, value in evaluation.scores.data_vars.items():
            if value.dtype.kind == "f":
                written = np.array(entries[name]["data"], dtype=float)
                np.testing.assert_array_equal(written, value.values)
                np.testing.assert_array_equal(stored[name].values, value.values)
        for name in ("rmse", "energy_score"):
            assert all(number(float(value)) in cells for value in stored[name].values.ravel())


def test_words_of_the_data_never_become_markup_or_mathematics(data):
    ensemble, truth = data
    hostile = "<script>alert(1)</script>$x^$"
    units = {"units": 'K"><img src=http://x>'}
    ensemble, truth = (ds.rename(t=hostile).map(lambda v: v.assign_attrs(units)) for ds in (ensemble, truth))
    made = evaluate({"<em>a</em>": ensemble, "b": ensemble + 1}, truth, baselines={"<i>": truth})
    page = render(made)
    assert "<script" not in page
    assert "<em>" not in page
    assert "<i>" not in page
    reader = Reader()
    reader.feed(page)
    assert all(link.startswith(("#", "data:")) for link in reader.loads)


def test_figures_are_written_as_pictures_of_every_plot(evaluation, tmp_path):
    evaluation.to_figures(tmp_path / "figures")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    one = scores_of(evaluation)["ensemble"].sel(variable="t")
    for plot in (plot for section in SECTIONS for plot in section.plots if plot.possible(one)):
        stem = f"t_{plot.name}_0" if len(plot.draw(one)) > 1 else f"t_{plot.name}"
        assert {f"{stem}.svg", f"{stem}.png"} <= names
    pixels = image.imread(tmp_path / "figures" / "t_map_truth.png")
    assert pixels[0, 0].tolist() == [1, 1, 1, 1]  # white, not transparent
    assert "currentColor" not in (tmp_path / "figures" / "t_map_truth.svg").read_text()


def test_words_added_to_a_title_leave_it_in_its_place():
    """Above the wavelengths of a spectrum."""
    with styled():
        canvas, (axes,) = figure()
        axes.set_title("Power", pad=35)
        title = next(one for one in axes.findobj(Text) if one.get_text() == "Power")
    canvas.draw_without_rendering()
    before = title.get_window_extent()
    Drawing(canvas, "").add_to_title("pr")
    canvas.draw_without_rendering()
    assert axes.get_title(loc="left") == "Power: pr"
    assert title.get_window_extent().y0 == before.y0


def test_many_cases_are_averaged_in_runs_of_equal_length(evaluation):
    one = scores_of(evaluation)["ensemble"].sel(variable="t")
    values = np.arange(250.0)[None] + np.array([[1.0], [2.0]])
    long = one.drop_dims("case").assign(crps_by_case=(("system", "case"), values)).assign_coords(case=np.arange(250))
    with styled():
        (axes,), (few,) = (by_case(series)[0].canvas.axes for series in (long, long.isel(case=slice(3))))
    assert axes.get_title(loc="left") == "CRPS, means of 3 cases"
    assert few.get_title(loc="left") == "CRPS, case by case"
    line = next(line for line in axes.lines if line.get_label() == "ensemble")
    np.testing.assert_array_equal(line.get_xdata(), 3 * np.arange(84) + 1)
    np.testing.assert_array_equal(line.get_ydata()[:2], [2, 5])
    assert line.get_ydata()[-1] == 250  # what is left over: one case


def test_what_a_variable_never_does_is_not_drawn():
    """Rain has no values below 0, and its lowest value is always the same."""
    draws = np.maximum(np.random.default_rng(0).normal(size=(5, 24, 8, 8)), 0)
    truth = xr.Dataset({"pr": (("time", "y", "x"), draws[0])})
    found = evaluate(xr.Dataset({"pr": (("member", "time", "y", "x"), draws[1:])}), truth, periodic=["y", "x"])
    one = scores_of(found)["ensemble"].sel(variable="pr")
    assert [drawing.words for drawing in returns(one)] == ["Return levels of the highest value of the domain"]
    (axes,) = tails(one)[0].canvas.axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == 2
    assert all(label.startswith(">") for label in labels)


def test_a_page_that_would_be_too_large_shows_fewer_variables(data, monkeypatch):
    ensemble, truth = data
    both = [ds.assign(u=ds["t"] + 1) for ds in (ensemble, truth)]
    monkeypatch.setattr("sciffusion.evaluation.report.page.LARGEST", 1)
    page = render(evaluate(*both))
    assert "1 more variables have numbers in the scorecard only" in page
    assert page.count('aria-label="Rank histogram') == 1


def test_identifiers_of_figures_do_not_collide(page):
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_words_of_the_data_are_escaped(page):
    assert "heun &lt;18 calls&gt;" in page
    assert "wide &amp; shifted" in page
    assert "<18" not in page


def test_origin_of_our_own_ensembles_is_shown(data):
    ensemble, truth = data
    identity = json.dumps(
        {"model": {"sha256": "0123456789abcdef"}, "seed": 3, "sampler": {"solver": "heun", "steps": 18}}
    )
    page = render(evaluate(ensemble.drop_attrs().assign_attrs(sciffusion_identity=identity), truth))
    assert "heun, 18 steps" in page
    assert "<b>0123456789ab</b>" in page


def test_a_page_of_training_cases_says_so_first(data):
    ensemble, truth = data
    page = render(evaluate(ensemble.assign_coords(training_case=("time", [True] * 3)), truth))
    assert page.index("IN-SAMPLE.") < page.index("Verdict")


def test_scorecard_of_the_terminal_is_aligned(evaluation):
    lines = evaluation.summary().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("variable"))
    column = lines[start].index("RMSE")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[start + 2 : start + 4])
    assert evaluation.summary().isascii() or "’" not in evaluation.summary()


def test_the_command_writes_what_was_asked_for(data, tmp_path, capsys):
    ensemble, truth = data
    ensemble.to_netcdf(tmp_path / "ens.nc")
    truth.rename(t="temperature").to_netcdf(tmp_path / "truth.nc")
    (2 * ensemble).to_zarr(tmp_path / "wide.zarr")
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    outputs = [
        "--report",
        str(tmp_path / "r.html"),
        "--json",
        str(tmp_path / "r.json"),
        "--netcdf",
        str(tmp_path / "r.nc"),
    ]
    words = [str(tmp_path / "ens.nc"), "--reference", str(tmp_path / "truth.nc"), "--rename", "temperature=t"]
    asked = [*words, "--baselines", f"wide={tmp_path / 'wide.zarr'}", *outputs]
    assert command.run(parser.parse_args(asked)) == 0
    assert "Beats wide" in capsys.readouterr().out
    with xr.open_dataset(tmp_path / "r.nc") as back:
        expected = evaluate(ensemble, truth, baselines={"wide": 2 * ensemble}).scores
        np.testing.assert_allclose(back.crps_ratio, expected.crps_ratio)
    assert "<svg" in (tmp_path / "r.html").read_text()
    (tmp_path / "r.html").write_text("notes of my own")
    with pytest.raises(SciffusionError, match=r"r\.html exists"):
        command.run(parser.parse_args(asked))
    assert (tmp_path / "r.html").read_text() == "notes of my own"
    (tmp_path / "r.html").unlink()
    with pytest.raises(SciffusionError, match=r"(json|nc|yaml) exists"):  # the YAML beside the report counts as well
        command.run(parser.parse_args(asked))
    assert command.run(parser.parse_args([*asked, "--overwrite"])) == 0
    assert "<svg" in (tmp_path / "r.html").read_text()
