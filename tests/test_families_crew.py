"""Who makes which row of the family table when: order, places, time, teachers; by a clock that the tests set."""

import argparse
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def crews(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import families_crew

    return families_crew


def rows(*names):
    from families_experiment import Row

    return [Row.named(name) for name in names]


def options(folder, **changed):
    common = {"minutes": 2.0, "members": 50, "cases": 64, "jobs": 2, "until": 560.0, "toy": False, "continued": False}
    return argparse.Namespace(**common | {"work": folder, "out": folder, "keep": None} | changed)


def trained(args, row):
    from families_experiment import run_folder

    folder = run_folder(args, row) / "emulator"
    folder.mkdir(parents=True)
    (folder / "model.json").touch()


def test_rows_begin_in_order_where_there_is_room_and_pupils_wait(tmp_path, crews, monkeypatch):
    args = options(tmp_path)
    crew = crews.Crew(rows("grf/ect", "grf/edm", "grf96/edm/1", "grf/flow"), args, ["0", "1"], lambda: 0.0)
    monkeypatch.setattr(crew, "_start", lambda row, place: None)
    assert [crew._begin(place) for place in ("0", "1", "0", "1", "0")] == [True, True, True, False, False]
    begun = {row.name: place for row, (_, place) in crew.running.items()}
    assert begun == {"grf-edm-0": "0", "grf96-edm-1": "1", "grf-flow-0": "0"}  # the teacher's row is not trained yet
    trained(args, *rows("grf/edm"))
    assert not crew._begin("0")  # two are in the making there
    assert crew._begin("1")
    assert crew.running[rows("grf/ect")[0]] == (None, "1")


def test_what_would_not_end_in_time_is_passed_over(tmp_path, crews):
    args, now = options(tmp_path, jobs=3), [0.0]
    crew = crews.Crew(rows("grf/dit", "grf/ect"), args, ["0"], lambda: now[0])
    trained(args, *rows("grf/edm"))
    dit, ect = crew.waiting
    assert crew._ahead(dit, "0") == crews.BEFORE + 120 + dit.seconds_after(args)
    assert crew._ahead(ect, "0") == crews.BEFORE + 120 + ect.seconds_after(args)
    now[0] = 560 - crew._ahead(dit, "0")
    assert crew.next("0") == dit
    now[0] += 0.1
    assert crew.next("0") == ect  # a tenth of the network calls
    now[0] = 560 - crew._ahead(ect, "0") + 0.1
    assert crew.next("0") is None
    (window,) = rows("gcm-window/window")
    assert window.seconds_after(args) > 180  # 41 s of sampling were measured, and more than 125 s of scoring


def test_of_rows_that_another_command_ends_the_training_alone_has_to_fit(tmp_path, crews):
    args = options(tmp_path, continued=True)
    crew = crews.Crew(rows("grf/edm", "grf/flow"), args, ["0"], lambda: 0.0)
    edm, flow = crew.waiting
    assert crew._ahead(edm, "0") == crews.BEFORE + 120
    trained(args, flow)  # by the command before
    assert crew._ahead(flow, "0") == crews.BEFORE


def test_a_row_waits_for_those_on_its_own_device_alone(tmp_path, crews):
    args = options(tmp_path)
    crew = crews.Crew(rows("grf/flow"), args, ["0", "1"], lambda: 0.0)
    (edm, flow) = rows("grf/edm", "grf/flow")
    crew.running[edm] = (None, "0")
    longer = 120 + edm.seconds_after(args) / 2 - crews.BEFORE
    assert crew._ahead(flow, "0") - crew._ahead(flow, "1") == pytest.approx(longer)
    trained(args, edm)
    assert crew._ahead(flow, "0") == crew._ahead(flow, "1")  # it samples and scores beside


def test_the_devices_are_those_that_the_environment_names(crews, monkeypatch):
    monkeypatch.setattr(crews.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(crews.torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert crews.places(None) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert crews.places("cuda") == ["2", "5"]
    assert crews.places("cpu") == [None]


def test_batches_have_as_many_cells_on_every_problem(tmp_path, crews, monkeypatch):
    import families_experiment as experiments
    import xarray as xr

    def count(sizes, crop):
        data = xr.Dataset(coords={dim: range(n) for dim, n in sizes.items()})
        monkeypatch.setattr(experiments, "open_source", lambda *_, **__: data)
        target = SimpleNamespace(source=None, dims=[dim for dim in sizes if dim != "time"])
        return experiments.batch_size(SimpleNamespace(target=target, train=SimpleNamespace(crop=crop)))

    assert count({"time": 9, "y": 64, "x": 64}, {}) == 128
    assert count({"time": 9, "y": 128, "x": 128}, {}) == 32
    assert count({"time": 9, "lat": 181, "lon": 360}, {"lat": 96, "lon": 96}) == 56
    assert count({"z": 1024, "y": 1024, "x": 1024}, {}) == 1


@pytest.mark.parametrize(
    ("problem", "kept"), [("grf", ("last", 10**6)), ("era5", ("best", 500)), ("era5-tp", ("best", 500))]
)
def test_validation_chooses_what_to_keep_where_data_are_few(tmp_path, crews, problem, kept):
    """Of what is simulated there is enough: no dropout, and the last average."""
    import families_experiment as experiments
    from families_problems import prepared

    args, cpu = options(tmp_path, set=[]), torch.device("cpu")
    args.minutes = 0.1
    (row,) = rows(f"{problem}/edm")
    settings = experiments.experiment(row, prepared(problem, tmp_path, cpu, toy=True), args, cpu)
    assert (settings.train.keep, settings.train.validate_every) == kept
    assert (settings.stages[0].network.dropout > 0) == (kept[0] == "best")


def test_pupils_that_begin_together_unpack_their_teacher_once(tmp_path, crews, monkeypatch):
    import tarfile

    import families_experiment as experiments

    (teacher,) = rows("grf/edm")
    args = options(tmp_path / "work", keep=tmp_path / "kept")
    args.keep.mkdir()
    (tmp_path / "model.json").write_text("{}")
    with tarfile.open(experiments.kept_file(teacher, args), "w") as archive:
        archive.add(tmp_path / "model.json", "model.json")
    unpacked, together = [], threading.Barrier(4)
    extract = tarfile.TarFile.extractall
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda *a, **k: (unpacked.append(a), extract(*a, **k)))
    monkeypatch.setattr(experiments, "experiment", lambda *_: SimpleNamespace(model_dump=lambda mode: {}))

    def pupil():
        together.wait()
        experiments.teacher_folder(teacher, tmp_path, args, None)

    threads = [threading.Thread(target=pupil) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(unpacked) == 1
    assert teacher.trained(args)
