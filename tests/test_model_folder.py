"""A model folder is used only when it is whole, unaltered and of this version."""

import hashlib
import json
import os

import pytest
import torch

from sciffusion.errors import SciffusionError
from sciffusion.model_folder import digest, read_model, write_model


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "model", {"card": {"title": "test"}}, {"a.b": torch.arange(6.0).reshape(2, 3)})
    return tmp_path / "model"


def rewrite(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read_and_nothing_else_is_left(folder):
    description, tensors = read_model(folder)
    assert description["card"] == {"title": "test"}
    assert torch.equal(tensors["a.b"], torch.arange(6.0).reshape(2, 3))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(SciffusionError, match="not a model folder"):
        read_model(tmp_path)


def test_missing_weights_are_named(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(SciffusionError, match=r"weights\.safetensors: missing"):
        read_model(folder)


@pytest.mark.parametrize("keep", [10, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SciffusionError, match="altered or truncated"):
        read_model(folder)


def test_altered_settings_are_refused(folder):
    rewrite(folder, card={"title": "forged"})
    with pytest.raises(SciffusionError, match="digest"):
        read_model(folder)


def test_a_future_version_asks_for_a_newer_package(folder):
    rewrite(folder, version=99)
    with pytest.raises(SciffusionError, match="version 99") as caught:
        read_model(folder)
    assert "newer sciffusion" in caught.value.mend


def test_a_truncated_description_is_refused(folder):
    path = folder / "model.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(SciffusionError, match="not valid JSON"):
        read_model(folder)


def test_a_failed_write_leaves_the_previous_model_and_no_temporary_file(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="JSON"):
        write_model(folder, {"card": {"loss": float("nan")}}, {"a.b": torch.zeros(3)})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_files_are_written_with_the_users_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        write_model(tmp_path / "model", {"card": {}}, {"a.b": torch.zeros(3)})
    finally:
        os.umask(previous)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o666 & ~umask}


def test_a_header_that_declares_more_than_the_file_holds_is_refused(folder):
    header = json.dumps({"a.b": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    weights = folder / "weights.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    description = json.loads((folder / "model.json").read_text())
    description["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    rewrite(folder, weights=description["weights"], digest=digest(description))
    with pytest.raises(SciffusionError, match="not a safetensors file"):
        read_model(folder)


def test_the_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
