"""On a GPU every score has the numbers of numpy, from data of the host and from data that lie on the device."""

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion import evaluation as ev
from sciffusion.evaluation import dispersion, events, single_cells, whole_fields
from sciffusion.evaluation.backend import Torch, backend_of
from sciffusion.evaluation.crps import crps
from sciffusion.evaluation.multivariate import energy_score
from sciffusion.evaluation.ranks import rank_bins, rank_counts
from sciffusion.evaluation.score import ensemble_moments
from sciffusion.evaluation.spectra import Shells

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
MEASURES = (
    single_cells.CRPS(),
    single_cells.CRPS("almost fair"),
    single_cells.ThresholdCRPS((0.0, 0.5)),
    dispersion.Dispersion(),
    dispersion.Ranks(),
    events.PIT(5),
    whole_fields.Energy(),
    whole_fields.PooledCRPS((1, 2)),
)


@pytest.fixture(autouse=True)
def needs_a_gpu(request):
    if "cuda" in request.node.name and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")


def draw(members=120, gaps=True, digits=1):
    """Members (member, y, x) and truth with many ties, and some members and truths missing."""
    generator = np.random.default_rng(7)
    x, y = generator.normal(size=(members, 30, 24)).round(digits), generator.normal(size=(30, 24)).round(digits)
    if gaps:
        x[generator.random(x.shape) < 0.05] = np.nan
        x[:, 2], y[5, :9] = np.nan, np.nan
    return x, y


def on(device, *arrays):
    return [torch.from_numpy(array).to(device) for array in arrays]


@pytest.mark.parametrize("device", [*DEVICES, "cpu that waits"])
@pytest.mark.parametrize("gaps", [False, True])
def test_kernels_of_cells_answer_tensors_on_their_device_with_the_numbers_of_numpy(device, gaps, monkeypatch):
    """Where looking at a value would wait for the device, gaps are counted always instead of looked for."""
    if device.endswith("waits"):
        device = "cpu"
        monkeypatch.setattr(Torch, "waits", property(lambda self: True))
    (x, y), torch_ = draw(gaps=gaps), backend_of("torch", device)
    tensors, flat = on(device, x, y), y.reshape(-1)
    found = crps(*tensors, backend=torch_)
    assert found.device.type == device
    np.testing.assert_allclose(found.cpu(), crps(x, y), rtol=1e-12, atol=1e-12)
    for bins in (121, 101):
        found = rank_bins(tensors[0], tensors[1].reshape(-1), bins, 3, backend=torch_)
        np.testing.assert_array_equal(found.cpu(), rank_bins(x, flat, bins, 3))
    for ours, exact in zip(rank_counts(tensors[0], tensors[1].reshape(-1), torch_), rank_counts(x, flat), strict=True):
        np.testing.assert_array_equal(ours.cpu(), exact)
    for ours, exact in zip(ensemble_moments(*tensors, torch_), ensemble_moments(x, y), strict=True):
        np.testing.assert_allclose(ours.cpu(), exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("device", DEVICES)
def test_kernels_of_fields_answer_tensors_with_the_numbers_of_numpy(device):
    (x, y), torch_ = draw(gaps=False), backend_of("torch", device)
    weights = np.random.default_rng(1).random(y.shape)
    assert energy_score(*on(device, x, y), weights, torch_) == pytest.approx(energy_score(x, y, weights), rel=1e-12)
    shells = Shells(y.shape, (1.0, 2.0), (True, False))
    (fields,) = on(device, x)
    kept = fields.clone()
    np.testing.assert_allclose(shells.power(fields, torch_).cpu(), shells.power(x), rtol=1e-10, atol=1e-15)
    assert torch.equal(fields, kept)


@pytest.mark.gpu
@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: type(measure).__name__)
def test_scores_of_data_from_the_host_on_cuda(measure):
    x, y = draw()
    times = np.datetime64("2001-01-01", "ns") + np.arange(30) * np.timedelta64(1, "D")
    truth = xr.DataArray(y, {"time": times, "x": 2.0 * np.arange(24)}, ("time", "x"))
    members = xr.DataArray(x, truth.coords, ("member", "time", "x"))
    settings = {"interval": 0.9}
    ours, exact = (
        ev.score(measure, members, truth, backend=backend, **settings) for backend in ("torch", "numpy")
    )  # without a name the GPU is taken
    np.testing.assert_allclose(ours, exact, rtol=1e-11, atol=1e-12)


@pytest.mark.gpu
def test_an_evaluation_on_cuda():
    generator = np.random.default_rng(2)
    draws = generator.normal(size=(7, 12, 16, 20))
    truth = xr.Dataset({"a": (("time", "y", "x"), draws[0])})
    members = xr.Dataset({"a": (("member", "time", "y", "x"), draws[1:])})
    ours, exact = (ev.evaluate(members, truth, backend=backend).scores for backend in ("torch", "numpy"))
    for name, array in exact.data_vars.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], array, rtol=1e-9, atol=1e-11, err_msg=name)
