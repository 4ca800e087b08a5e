"""Running `generate` with the fake emulator, and looking at what it wrote."""

from sciffusion.fields.ensemble import open_ensemble
from sciffusion.generation import generate
from tests.generation.fake import FakeEmulator, conditions


def run(path, emulator=None, data=None, members=3, **options):
    options = {"batch_size": 3, "device": "cpu", "progress": False} | options
    return generate(emulator or FakeEmulator(), conditions() if data is None else data, path, members, **options)


def fields(path):
    return open_ensemble(path).load()[["u", "v"]].drop_vars("training_case").drop_attrs(deep=False)


def chunks(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("c/*/**/*") if file.is_file()}


def as_process(monkeypatch, rank, size):
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))
