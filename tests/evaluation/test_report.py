"""The report is one file that says what the scores say; the command writes it."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from sciffusion.cli import evaluate as command
from sciffusion.evaluation import evaluate
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
    assert len(figures) >= 8 + 8
    assert all('aria-label="' in one and "<svg" in one for one in figures)
    assert page.count("<figcaption>") >= 8


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
    from sciffusion.evaluation.report import render

    page = render(evaluate(ensemble.drop_attrs().assign_attrs(sciffusion_identity=identity), truth))
    assert "heun, 18 steps" in page
    assert "<b>0123456789ab</b>" in page


def test_a_page_of_training_cases_says_so_first(data):
    ensemble, truth = data
    from sciffusion.evaluation.report import render

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
    assert command.run(parser.parse_args([*words, "--baselines", f"wide={tmp_path / 'wide.zarr'}", *outputs])) == 0
    assert "Beats wide" in capsys.readouterr().out
    with xr.open_dataset(tmp_path / "r.nc") as back:
        expected = evaluate(ensemble, truth, baselines={"wide": 2 * ensemble}).scores
        np.testing.assert_allclose(back.crps_ratio, expected.crps_ratio)
    assert "<svg" in (tmp_path / "r.html").read_text()
