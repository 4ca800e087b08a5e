"""README and docs say what is so: their lines are run, their links lead somewhere, the settings page is complete.

Fenced ``console`` and ``python`` blocks of a page run in order in one folder, which holds the small fields that
``docs/make_fields.py`` writes. In a console block lines after ``$ `` are commands, the rest is their answer and is not
compared. A comment above a block changes that:

    <!-- run: not -->                          the block is shown only
    <!-- run: train --set train.steps=4 | generate --members 2 -->
                                               these commands are given these arguments as well, to keep them short

and ``<!-- page: slow -->`` anywhere on a page leaves it out of the default suite.
"""

import ast
import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import sciffusion
from sciffusion import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- run: (?P<how>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```\n", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|mailto:)(?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: how it is to be run, its language, its text."""

    how: str
    language: str
    text: str

    @property
    def commands(self):
        """Lines after the prompt, with continued lines joined."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]

    def extra(self, line):
        """What the comment above the block adds to the command ``sciffusion NAME ...``."""
        added = dict(part.strip().split(" ", 1) for part in self.how.split("|") if " " in part.strip())
        name = line.split()[1] if line.startswith("sciffusion ") else ""
        return added.get(name, "")


def blocks(page):
    return [Block(m["how"] or "", m["language"], m["text"]) for m in FENCE.finditer(page.read_text())]


def ids(pages):
    return [str(page.relative_to(ROOT)) for page in pages]


def is_slow(page):
    return "<!-- page: slow -->" in page.read_text()


def marked(page):
    return pytest.param(page, marks=[pytest.mark.slow] if is_slow(page) else [], id=str(page.relative_to(ROOT)))


RUNNABLE = [page for page in PAGES if any(b.language in {"console", "python"} and b.how != "not" for b in blocks(page))]


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Environment in which ``sciffusion`` and ``python`` are those under test."""
    folder = tmp_path_factory.mktemp("bin")
    for name, call in {"sciffusion": '-m sciffusion "$@"', "python": '"$@"'}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}\n')
        script.chmod(0o755)
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "SCIFFUSION_CACHE": str(folder)}
    return os.environ | paths | {"MPLBACKEND": "agg"}


def execute(command, folder, shell):
    done = subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def run_block(block, folder, shell):
    if block.language == "python":
        execute([sys.executable, "-c", block.text], folder, shell)
    for line in block.commands if block.language == "console" else ():
        execute(["bash", "-ec", f"{line} {block.extra(line)}"], folder, shell)


@pytest.mark.parametrize("page", [marked(page) for page in RUNNABLE])
def test_the_lines_of_a_page_run_as_printed(page, tmp_path, shell):
    execute([sys.executable, str(ROOT / "docs" / "make_fields.py")], tmp_path, shell)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for block in blocks(page):
        if block.how != "not":
            run_block(block, tmp_path, shell)


def without_make(variables):
    """The environment without what ``make test ARGS=...`` hands down: a make inside it would take it for its own."""
    handed_down = {"ARGS", "PYTHON", "VENV", "MFLAGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    return {name: value for name, value in variables.items() if name not in handed_down}


@pytest.mark.slow
def test_make_demo_ends_with_a_report(tmp_path):
    """The README's first command, in a copy of the repository.

    Its environment has the interpreter that runs the tests, and is none that make would install the copy into.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(os.readlink(ROOT / name) if (ROOT / name).is_symlink() else ROOT / name)
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", "VENV=environment"],
        cwd=tmp_path,
        env=without_make(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = Path(re.search(r"demo: report: (.*)", done.stdout)[1])
    assert report == tmp_path / "demo-output" / "report.html"
    assert "<svg" in report.read_text() or "data:image/png" in report.read_text()


def refused(line):
    """What the command line's parser has against ``sciffusion ...``; nothing when it takes it."""
    words = shlex.split(line.partition(" |")[0].partition(" > ")[0])
    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.suppress(SystemExit):
        cli._parser(words[1]).parse_args(words[1:])
    return stderr.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_printed_commands_exist_with_their_options(page):
    lines = [line for block in blocks(page) for line in block.commands if line.startswith("sciffusion ")]
    assert [(line, refused(line)) for line in lines if refused(line)] == []


def test_a_misspelt_option_is_noticed():
    assert "--membres" in refused("sciffusion generate run --membres 16 --output ens.zarr")


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_blocks_are_well_formed(page):
    assert 2 * len(blocks(page)) == page.read_text().count("```"), "a fence without language or end"
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict)


def slug(heading):
    """The anchor that a heading gets on the page."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_to_files_and_headings_of_the_repository(page):
    broken = []
    for link in LINK.finditer(page.read_text()):
        target = (page.parent / link["target"]).resolve() if link["target"] else page
        if not target.exists():
            broken.append(link[0])
        elif link["anchor"] and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            broken += [link[0]] if link["anchor"] not in map(slug, headings) else []
    assert broken == []


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    assert [
        page.name for page in PAGES if page.parent.name == "docs" and page.stem != "index" and page.name not in index
    ] == []


def test_the_settings_page_is_what_the_settings_say():
    made = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))
    assert (ROOT / "docs" / "settings.md").read_text() == made["page"](), "run python docs/make_settings.py"


def test_every_command_is_documented():
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in cli.COMMANDS if f"sciffusion {name}" not in text] == []


def test_every_public_name_can_be_had():
    assert [name for name in sciffusion.__all__ if getattr(sciffusion, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        sciffusion.sampel  # noqa: B018


@pytest.mark.parametrize("word", ["TODO", "FIXME", "TBD", "XXX", "to be measured", "lorem"])
def test_nothing_is_left_unfinished_on_a_page(word):
    assert [page.name for page in PAGES if word in page.read_text()] == []
