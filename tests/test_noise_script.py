"""What benchmarks/noise.py measures, at no time's cost, and that it tells equal bits from others."""

import json
import sys
from pathlib import Path

import pytest
import torch

from sciffusion.noise import member_noise
from sciffusion.stages import ahead


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import noise

    yield noise
    del sys.modules["noise"]


def made(script, folder, monkeypatch):
    words = ["noise.py", "--seconds", "0", "--threads", "1", "--device", "cpu", "--out", str(folder / "noise.json")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(script, "BATCHES", ((8, 3), (16, 2)))
    monkeypatch.setattr(ahead, "CHUNK", ahead.CHUNK)
    script.main()
    return json.loads((folder / "noise.json").read_text())["rows"]


def test_without_a_gpu_only_the_host_is_measured(script, tmp_path, monkeypatch):
    rows = made(script, tmp_path, monkeypatch)
    assert list(rows) == ["8x8 by 3", "16x16 by 2"]
    for row in rows.values():
        assert set(row) == {"alone_normals_per_s", "together_normals_per_s"}
        assert min(row.values()) > 0


def test_the_share_of_equal_bits_is_counted(script, tmp_path, monkeypatch):
    def half_wrong(device, members, shape):
        drawn = torch.from_numpy(member_noise(members, shape))
        drawn[..., ::2] *= -1
        return drawn

    monkeypatch.setattr(script, "draws_noise", lambda device: True)
    monkeypatch.setattr(script, "drawn_on", half_wrong)
    assert [row["equal"] for row in made(script, tmp_path, monkeypatch).values()] == [0.5, 0.5]
