"""How far it is, said to whoever watches: a bar on a terminal, now and then a line in a batch job."""

import logging

import pytest

from sciffusion.generation import progress
from sciffusion.generation.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_batch_job_gets_a_line_now_and_then_and_one_at_the_end(clock, caplog, monkeypatch):
    monkeypatch.setattr(progress, "_interactive", lambda: False)
    with caplog.at_level(logging.INFO, "sciffusion"):
        counted = Progress(120, 20)
        for _ in range(100):
            clock[0] += 1.0
            counted.update(1)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 4
    assert lines[0] == "generating: 51 of 120 items, 1.00 per second, 0:01:09 to go"
    assert lines[-1].startswith("generating: 120 of 120 items")


def test_a_terminal_gets_a_bar_that_begins_where_the_work_does(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_interactive", lambda: True)
    counted = Progress(120, 20)
    counted.update(40)
    counted.close()
    shown = capsys.readouterr().err
    assert "20/120" in shown
    assert "60/120" in shown


def test_nothing_is_said_to_those_who_want_quiet(monkeypatch, caplog, capsys):
    monkeypatch.setattr(progress, "_interactive", lambda: True)
    counted = Progress(2, 0, show=False)
    counted.update(2)
    counted.close()
    assert caplog.records == []
    assert capsys.readouterr().err == ""
