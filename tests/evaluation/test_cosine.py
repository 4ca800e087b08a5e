"""The cosine transform keeps the variance of an open domain and does not mistake its edges for detail."""

import numpy as np
import pytest

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.cosine import CosineShells
from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.spectra import Shells
from sciffusion.fields.grid import Grid


@pytest.mark.parametrize("shape", [(17,), (16, 21), (5, 8, 7)])
def test_power_sums_to_the_variance(shape):
    field = np.random.default_rng(0).normal(size=(1, *shape)) + 100
    basis = CosineShells(shape, (1.0, 2.0, 0.5)[: len(shape)], (False,) * len(shape))
    power = basis.coefficients(field, np.ones(shape, bool))[0] ** 2
    assert basis.gather(power).sum() == pytest.approx(field.var(), rel=1e-12)


def test_a_wave_lies_in_the_shell_of_its_wavenumber():
    n = 64
    basis = CosineShells((n, n), (1.0, 1.0), (False, False))
    wave = np.cos(np.pi * 10 * (np.arange(n) + 0.5) / n)[None, :, None] * np.ones((1, n, n))
    power = basis.gather(basis.coefficients(wave, np.ones((n, n), bool))[0] ** 2)[0]
    assert basis.wavenumber[power.argmax()] == pytest.approx(10 / (2 * n), rel=0.02)
    assert power.max() == pytest.approx(wave.var(), rel=1e-10)


def test_a_ramp_has_far_less_fine_power_than_in_a_raw_transform():
    n = 64
    ramp = np.add.outer(np.arange(n), np.arange(n))[None] * 1.0
    shares = []
    for basis in (CosineShells((n, n), (1.0, 1.0), (False, False)), Shells((n, n), (1.0, 1.0), (True, True))):
        power = basis.gather(np.abs(basis.coefficients(ramp, np.ones((n, n), bool))[0]) ** 2)[0]
        shares.append(power[basis.wavenumber > 0.25].sum() / power.sum())
    assert shares[0] < 1e-3 * shares[1]


def test_a_domain_that_wraps_around_is_refused():
    grid = Grid(("y", "x"), (8, 8), (None, None), periodic=(False, True))
    with pytest.raises(SciffusionError, match="wraps around"):
        Domain.of(grid, "dct")
