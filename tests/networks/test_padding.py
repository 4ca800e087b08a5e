"""Padding continues a field past its edges as its geometry says."""

import numpy as np
import pytest
import torch

from sciffusion.errors import SciffusionError
from sciffusion.networks.padding import pad
from sciffusion.networks.patches import fold, unfold

GLOBE = ("pole", "periodic")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "mode"), [("periodic", "wrap"), ("reflect", "reflect"), ("constant", "constant")])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_padding_agrees_with_numpy(rank, name, mode):
    x = draw(2, 3, *(5, 4, 6)[:rank])
    widths = [(1, 2), (3, 0), (2, 2)][:rank]
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), *widths], mode=mode)
    np.testing.assert_array_equal(pad(x, widths, [name] * rank).numpy(), expected)


def test_a_smooth_function_on_the_sphere_continues_across_both_poles():
    latitude, longitude = torch.linspace(90, -90, 37).deg2rad(), (torch.arange(72) * 5.0).deg2rad()
    beyond = (90 + 5 * torch.arange(2, -37, -1.0)).deg2rad()  # the meridian followed past the north pole

    def cartesian(latitude, longitude):
        """A linear function of (x, y, z), which is single-valued and smooth at the poles."""
        return 0.3 * latitude.cos()[:, None] * (longitude - 1).cos() + latitude.sin()[:, None]

    padded = pad(cartesian(latitude, longitude)[None, None], [(2, 0), 0], GLOBE)[0, 0]
    torch.testing.assert_close(padded, cartesian(beyond, longitude), rtol=0, atol=1e-6)


def test_an_odd_number_of_meridians_takes_the_mean_of_the_two_opposite_ones():
    x = draw(1, 1, 3, 5)
    crossed = pad(x, (1, 0), GLOBE)[0, 0, 0]
    row = x[0, 0, 1]
    expected = torch.stack([(row[(j + 2) % 5] + row[(j + 3) % 5]) / 2 for j in range(5)])
    torch.testing.assert_close(crossed, expected)


@pytest.mark.parametrize("boundary", [("pole", "reflect"), ("periodic", "pole"), ("pole",), ("round", "periodic"), ()])
def test_boundaries_that_do_not_fit_the_grid_are_refused_with_a_mend(boundary):
    with pytest.raises(SciffusionError, match="->"):
        pad(draw(1, 1, *(4, 4)[: max(1, len(boundary))]), [1] * len(boundary), boundary)


def test_padding_further_than_the_axis_is_refused():
    with pytest.raises(SciffusionError, match="longer than 3"):
        pad(draw(1, 1, 3), [3], ["reflect"])


@pytest.mark.parametrize("size", [(7,), (6, 9), (5, 4, 7)])
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_unfolding_inverts_folding_for_any_size(size, patch):
    x = draw(2, 3, *size)
    folded = fold(x, patch, ["reflect"] * len(size))
    assert folded.shape == (2, 3 * patch ** len(size), *(-(-cells // patch) for cells in size))
    torch.testing.assert_close(unfold(folded, patch, size), x, rtol=0, atol=0)


def test_folding_keeps_the_cells_of_a_patch_together():
    cells = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert fold(cells, 2, ["reflect", "reflect"])[0, :, 1, 0].tolist() == [8.0, 9.0, 12.0, 13.0]
