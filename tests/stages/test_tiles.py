"""A stage that looks at its grid in tiles draws what it would draw of the whole, in less memory."""

import pytest
import torch

from sciffusion.config import Sampler
from sciffusion.context import Context
from sciffusion.emulator import Emulator
from sciffusion.execution.accelerate import Execution
from sciffusion.execution.memory import peak_bytes
from sciffusion.stages.items import Item
from tests.stages.toy import moved, toy

LOCAL = "stages.denoiser.network={kind: unet, channels: 8, multipliers: [1], blocks: 1, embedding: 8}"


@pytest.fixture(scope="module")
def stage_and_case(tmp_path_factory):
    """A network that sees four cells far; 16 x 24 cells, periodic."""
    stages, data = toy(tmp_path_factory.mktemp("tiles"), "edm", LOCAL).build()
    stage = moved(stages["denoiser"])
    emulator = Emulator(list(stages.values()), {})
    check = emulator.check(data.conditions, {"time": data.target.time.values[0]})
    return stage, stage.prepare(check.conditions, check.cases[0])


def drawn(stage, prepared, members=2, **changes):
    sampler = Sampler(solver="dpmpp-2m", steps=3, **changes)
    return stage.sample([Item(prepared, member) for member in range(members)], seed=0, sampler=sampler)


def test_tiles_of_a_local_network_give_the_whole_field(stage_and_case):
    whole = drawn(*stage_and_case)
    tiled = drawn(*stage_and_case, tile=20, overlap=18)  # 9 cells of margin and ramp on either side
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().max() < 0.05 * whole.std()
    torch.testing.assert_close(drawn(*stage_and_case), whole, rtol=0, atol=0)  # the network's boundary is back


def test_a_tile_as_large_as_the_grid_changes_nothing(stage_and_case):
    torch.testing.assert_close(drawn(*stage_and_case, tile=24), drawn(*stage_and_case), rtol=0, atol=0)


def test_the_coarse_field_holds_over_all_tiles(stage_and_case):
    stage, prepared = stage_and_case
    fields = stage.finish(drawn(stage, prepared, tile=8), [Item(prepared, member) for member in range(2)])
    decoded = stage.decode(fields, prepared, [0, 1])
    misfit = stage.coarse_misfit({name: decoded[name].values[0, 0] for name in decoded.data_vars}, prepared)
    assert max(misfit.values()) < 1e-4


def test_the_fast_form_knows_the_boundary_of_tiles(stage_and_case):
    stage, prepared = stage_and_case
    plain = drawn(stage, prepared, tile=8)
    stage.ready(stage.device, Execution("float32"))
    torch.testing.assert_close(drawn(stage, prepared, tile=8), plain, rtol=1e-4, atol=1e-4)
    assert stage.execution == Execution("float32")
    assert stage.network.boundary == ("reflect", "reflect")
    drawn(stage, prepared)
    assert stage.network.boundary == ("periodic", "periodic")


def test_memory_of_activations_is_that_of_the_tiles(stage_and_case):
    stage, _ = stage_and_case
    x, sigma = torch.randn(1, 2, 128, 128), torch.ones(1)
    context = {"whole": None, "tiles": None}
    with torch.no_grad():
        for name, sampler in (("whole", None), ("tiles", Sampler(tile=16))):
            denoiser = stage.accelerated((128, 128), sampler)
            channels = torch.zeros(1, stage.network.context_channels, 128, 128)
            cond = Context(channels=channels, vector=torch.zeros(1, 2))
            context[name] = peak_bytes(lambda denoiser=denoiser, cond=cond: denoiser(x, sigma, cond), x.device)
    assert context["tiles"] < context["whole"] / 4


def test_an_overlap_without_tiles_is_refused():
    with pytest.raises(ValueError, match="set tile too"):
        Sampler(overlap=8)
