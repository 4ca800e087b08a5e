"""The codec: round trips, unit variance, masks, crops, constraints pulled back, the way through its state."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion import config
from sciffusion.errors import NotAffine, SciffusionError
from sciffusion.fields.coarsen import conservative, refine
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.fit import fit_codec
from sciffusion.fields.grid import Grid
from sciffusion.fields.variables import channel_coords, stack, target_variables
from sciffusion.operators import Separable, project
from tests.fields import grids


def made(grid, settings, cases=6, levels=(), seed=0, dtype=np.float32):
    """A dataset of smooth noise on ``grid`` with the variables of ``settings``, and its codec's ingredients."""
    rng = np.random.default_rng(seed)
    dims = (*(("level",) if levels else ()), *grid.dims)
    shape = (cases, *((len(levels),) if levels else ()), *grid.shape)
    offset = rng.standard_normal(shape[1:])
    values = {name: (280 + 3 * offset + rng.standard_normal(shape)).astype(dtype) for name in settings}
    for name, how in settings.items():
        if how.transform in ("log1p", "sqrt"):
            values[name] = np.maximum(values[name] - 280, 0) * dtype(1e-3)
        if how.transform == "bounded":
            values[name] = np.clip((values[name] - 280) / 5 + dtype(0.5), 0, 1)
    coords = dict(grid.coords_dataset().coords) | ({"level": list(levels)} if levels else {})
    data = {name: (("time", *dims), x, {"units": "1", "long_name": name}) for name, x in values.items()}
    return xr.Dataset(data, coords=coords | {"time": np.arange(cases)})


def codec_of(ds, grid, settings, channel_dims=(), baseline=None, **how):
    variables = target_variables(ds, settings, grid.dims, channel_dims)
    coords = channel_coords(ds, grid, channel_dims)
    raw = [stack(ds.isel(time=t), variables, grid) for t in range(ds.sizes["time"])]
    pairs = [(x, None if baseline is None else baseline(x)) for x in raw]
    return fit_codec(pairs, variables, grid, coords=coords, **how), pairs


def interpolation(grid, factor=3.0, method="bicubic"):
    coarse = grid.coarsened(dict.fromkeys(grid.dims, factor))
    down, up = conservative(grid, coarse), refine(coarse, grid, method)
    return down, lambda x: up(down.masked(x))


PLAIN = {"t": config.Variable()}
MIXED = {
    "t": config.Variable(),
    "rain": config.Variable(transform="log1p"),
    "speed": config.Variable(transform="sqrt"),
    "cloud": config.Variable(transform="bounded", bounds=(0, 1)),
}


@pytest.mark.parametrize("name", grids.ALL)
def test_decoding_undoes_encoding(name):
    grid = grids.ALL[name]()
    ds = made(grid, MIXED)
    codec, pairs = codec_of(ds, grid, MIXED)
    z = torch.stack([codec.encode(x, b)[0] for x, b in pairs])
    decoded = codec.decode(z)
    for variable in MIXED:
        assert decoded[variable].dtype == np.float32
        np.testing.assert_allclose(decoded[variable], ds[variable].values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", grids.ALL)
@pytest.mark.parametrize("shrinkage", ["fit", 0.0, 1.0])
def test_the_target_has_unit_area_weighted_variance_per_channel(name, shrinkage):
    grid = grids.ALL[name]()
    ds = made(grid, MIXED)
    _, baseline = interpolation(grid)
    codec, pairs = codec_of(ds, grid, MIXED, baseline=baseline, shrinkage=shrinkage)
    held_out = torch.stack([codec.folds[i % 3].encode(x, b)[0] for i, (x, b) in enumerate(pairs)]).double().numpy()
    z = torch.stack([codec.encode(x, b)[0] for x, b in pairs]).double().numpy()
    axes = (0, *range(2, z.ndim))
    assert (held_out**2 * grid.cell_area()).mean(axis=axes) == pytest.approx(1.0, rel=1e-5)
    assert (z * grid.cell_area()).mean(axis=axes) == pytest.approx(0.0, abs=1e-5)


def test_a_mean_looks_better_on_its_own_cases_than_on_new_ones():
    """Noise of variance 1 around a fixed field: residuals to 10 others' mean have variance 1.1, to their own 14/15."""
    grid = grids.pole_rows()
    ds = made(grid, PLAIN, cases=300)
    pairs = [(stack(ds.isel(time=t), target_variables(ds, PLAIN, grid.dims), grid), None) for t in range(300)]
    codec = fit_codec(pairs[:15], target_variables(ds, PLAIN, grid.dims), grid, shrinkage=1.0)
    new = torch.stack([codec.encode(*pair)[0] for pair in pairs[15:]]).double().numpy()
    held_out = [codec.folds[i % 3].encode(*pair)[0] for i, pair in enumerate(pairs[:15])]
    mine = torch.stack([codec.encode(*pair)[0] for pair in pairs[:15]]).double().numpy()
    variance = {k: (np.asarray(v) ** 2 * grid.cell_area()).mean() * codec.sd[0] ** 2
                for k, v in {"new": new, "held": torch.stack(held_out), "mine": mine}.items()}  # fmt: skip
    assert variance["mine"] == pytest.approx(1 - 1 / 15, rel=0.03)
    assert variance["held"] == pytest.approx(1 + 1 / 10, rel=0.03)
    assert variance["new"] == pytest.approx(1 + 1 / 15, rel=0.03)


def test_levels_are_channels_and_come_back_with_their_coordinates():
    grid = grids.gaussian(8, 16)
    settings = PLAIN | {"q": config.Variable()}
    ds = made(grid, settings, levels=(850.0, 500.0)).assign_coords(a=("level", [1.0, 2.0]), height=2.0)
    ds["p"] = ds["t"].isel(level=0, drop=True) + 1
    ds["t"] = ds["t"].transpose("time", "longitude", "level", "latitude")
    settings["p"] = config.Variable()
    codec, pairs = codec_of(ds, grid, settings, ["level"])
    assert codec.channels == [("t", 0), ("t", 1), ("q", 0), ("q", 1), ("p", 0)]
    z = torch.stack([codec.encode(x, b)[0] for x, b in pairs])
    back = codec.dataset(codec.decode(z), {"time": ds["time"]})
    assert back["t"].dims == ("time", "longitude", "level", "latitude")
    for variable in settings:
        xr.testing.assert_allclose(back[variable], ds[variable], rtol=1e-6)
        assert back[variable].attrs == ds[variable].attrs
    members = codec.dataset(
        {name: array[None] for name, array in codec.decode(z).items()}, {"member": np.arange(1), "time": ds["time"]}
    )
    assert members["t"].dims == ("member", "time", "longitude", "level", "latitude")


def test_no_attribute_names_a_variable_that_is_left_behind():
    grid = grids.gaussian(8, 16)
    ds = made(grid, PLAIN, levels=(850.0, 500.0)).assign_coords(height=2.0)
    for name in ("level", "height"):
        ds[name].attrs |= {"bounds": f"{name}_bnds", "axis": "Z"}
    ds["t"].attrs |= {"cell_measures": "area: areacella", "ancillary_variables": "t_error"}
    codec, _ = codec_of(ds, grid, PLAIN, ["level"])
    back = codec.template({"time": ds["time"]})
    assert back["height"].attrs["axis"] == back["level"].attrs["axis"] == "Z"
    assert back["t"].attrs["units"] == ds["t"].attrs["units"]
    named = {"bounds", "cell_measures", "ancillary_variables"}
    assert [name for name, variable in back.variables.items() if named & set(variable.attrs)] == []


def test_a_template_has_the_shape_of_the_ensemble_and_no_data():
    grid = grids.gaussian(8, 16)
    ds = made(grid, PLAIN, levels=(850.0, 500.0))
    codec, pairs = codec_of(ds, grid, PLAIN, ["level"])
    leading = {"member": np.arange(1000), "time": ds["time"]}
    template = codec.template(leading)
    one = codec.decode(codec.encode(pairs[0][0])[0][None])["t"][None]
    written = codec.dataset({"t": one}, {"member": np.arange(1), "time": ds["time"][:1]})
    xr.testing.assert_identical(xr.zeros_like(template.isel(member=[0], time=[0])), xr.zeros_like(written))
    assert template["t"].values.strides[:2] == (0, 0)


def test_double_precision_stays_double_and_packed_data_become_single():
    grid = grids.box(4)
    ds = made(grid, PLAIN, dtype=np.float64)
    assert target_variables(ds, PLAIN, grid.dims)[0].dtype == "float64"
    ds["t"].encoding["dtype"] = np.dtype("int16")
    assert target_variables(ds, PLAIN, grid.dims)[0].dtype == "float32"


def masked_case(fraction=0.3):
    """A grid with land (always missing) and gaps (sometimes missing)."""
    grid = grids.regional()
    ds = made(grid, PLAIN, cases=5)
    rng = np.random.default_rng(1)
    land, gaps = rng.random(grid.shape) < fraction, rng.random((5, *grid.shape)) < 0.1
    gaps[0] = False
    ds["t"] = ds["t"].where(~land & ~gaps)
    return grid, ds, land, gaps


def test_land_is_masked_and_restored_and_gaps_are_zero():
    grid, ds, land, gaps = masked_case()
    codec, pairs = codec_of(ds, grid, PLAIN)
    assert (codec.valid[0] == ~land).all()
    z, present = codec.encode(*pairs[1])
    assert (present[0].numpy() == ~(land | gaps[1])).all()
    assert (z[~present] == 0).all()
    decoded = codec.decode(torch.randn(2, 1, *grid.shape))["t"]
    assert (np.isnan(decoded) == land).all()
    zs = np.stack([codec.folds[i % 3].encode(*pair)[0].numpy() for i, pair in enumerate(pairs)])
    here = np.stack([codec.encode(*pair)[1].numpy() for pair in pairs])
    weights = grid.cell_area() * here
    assert (zs**2 * weights).sum() / weights.sum() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("per_cell", [True, False])
def test_a_crop_is_the_window_of_the_whole(per_cell):
    grid, ds, _, _ = masked_case()
    _, baseline = interpolation(grid)
    codec, pairs = codec_of(ds, grid, PLAIN, baseline=baseline, per_cell=per_cell)
    window = (slice(3, 12), slice(0, 10))
    case, cut = ds.isel(time=2), (slice(None), *window)
    whole = codec.encode(*pairs[2])
    for x, b in [
        (pairs[2][0], pairs[2][1]),
        (case, pairs[2][1][cut]),
        (codec.stack(case, window), pairs[2][1][cut]),
    ]:
        z, present = codec.encode(x, b, window)
        assert torch.equal(z, whole[0][cut])
        assert torch.equal(present, whole[1][cut])
    assert torch.equal(codec.valid_cells(window), codec.valid_cells()[cut])
    decoded = codec.decode(whole[0][None], pairs[2][1])["t"]
    part = codec.decode(whole[0][None][(slice(None), *cut)], pairs[2][1], window)["t"]
    assert np.array_equal(part, decoded[(slice(None), *window)], equal_nan=True)


def test_statistics_from_windows_agree_with_those_of_the_whole():
    grid = grids.gaussian(12, 24)
    ds = made(grid, PLAIN)
    variables = target_variables(ds, PLAIN, grid.dims)
    quarters = [(slice(i, i + 6), slice(j, j + 12)) for i in (0, 6) for j in (0, 12)]
    fields = [stack(ds.isel(time=t), variables, grid) for t in range(6)]
    parts = [(x[(slice(None), *window)], None, window) for x in fields for window in quarters]
    whole = fit_codec([(x, None) for x in fields], variables, grid, per_cell=False)
    pieces = fit_codec(iter(parts), variables, grid, per_cell=False)
    assert pieces.sd == pytest.approx(whole.sd, rel=1e-12)
    assert pieces.mean == pytest.approx(whole.mean, rel=1e-7)
    flat = fit_codec([(x, None) for x in fields], variables, grid, shrinkage=0.0)
    assert flat.sd == pytest.approx(whole.sd, rel=1e-9)


def test_cells_that_no_window_showed_can_be_looked_at():
    grid, ds, land, _ = masked_case()
    variables = target_variables(ds, PLAIN, grid.dims)
    fields = [stack(ds.isel(time=t), variables, grid) for t in range(5)]
    corner = (slice(0, 8), slice(0, 8))
    pairs = [(x[(slice(None), *corner)], None, corner) for x in fields]
    blind = fit_codec(pairs, variables, grid, per_cell=False)
    assert (blind.valid[0, :8, :8] == ~land[:8, :8]).all()
    assert blind.valid[0, 8:].all()
    seeing = fit_codec(pairs, variables, grid, per_cell=False, looks=[(fields[0], None)])
    assert (seeing.valid[0] == ~land).all()
    assert seeing.sd == pytest.approx(blind.sd, rel=1e-12)


def test_a_constraint_pulled_back_is_the_same_constraint():
    """For random z: C decode(z) = y exactly when C z = y'."""
    grid = grids.pole_rows(10.0)
    settings = PLAIN | {"u": config.Variable()}
    ds = made(grid, settings, dtype=np.float64)
    down, baseline = interpolation(grid, 4.0)
    codec, pairs = codec_of(ds, grid, settings, baseline=baseline)
    z = torch.randn(1, 2, *grid.shape, dtype=torch.float64)
    physical = np.concatenate(list(codec.decode(z, pairs[0][1]).values()))
    matrices, pulled = codec.pull_back(down, down(physical), pairs[0][1])
    assert pulled.numpy() == pytest.approx(down(z[0].numpy()), abs=1e-9)
    for matrix, sparse in zip(matrices, down.dense(), strict=True):
        assert np.array_equal(matrix.numpy(), sparse)
    only = codec.pull_back(down, down(physical)[1:], pairs[0][1], channels=[1])[1]
    assert torch.equal(only[0], pulled[1])
    each = codec.pull_back(down, down(physical), np.stack([pairs[0][1], pairs[1][1]]))[1]
    assert torch.equal(each[0], pulled)
    assert torch.equal(each[1], codec.pull_back(down, down(physical), pairs[1][1])[1])


def test_a_constraint_pulled_back_through_a_mask_is_the_mean_over_what_is_left():
    grid, ds, land, _ = masked_case()
    down, baseline = interpolation(grid, 4.0)
    codec, pairs = codec_of(ds.astype(np.float64), grid, PLAIN, baseline=baseline)
    z = torch.randn(1, 1, *grid.shape, dtype=torch.float64)
    physical = codec.decode(z, pairs[0][1])["t"]
    y = down.masked(physical)
    pulled = codec.pull_back(down, y, pairs[0][1])[1].numpy()
    assert np.allclose(pulled, down.masked(z[0].numpy(), ~land[None]), atol=1e-9, equal_nan=True)


def test_curved_transforms_refuse_to_be_pulled_back():
    grid = grids.box(6)
    ds = made(grid, MIXED)
    codec, _ = codec_of(ds, grid, MIXED)
    down, _ = interpolation(grid)
    y = np.zeros((1, *down.out_shape))
    assert codec.pull_back(down, y, channels=[0])[1].shape == y.shape
    for channel in (1, 2, 3):
        with pytest.raises(NotAffine, match="not affine"):
            codec.pull_back(down, y, channels=[channel])


def with_single_poles(grid, settings, **how):
    ds = made(grid, settings, **how)
    for row in (0, -1):
        ds["t"][{"lat": row}] = ds["t"].isel(lat=row, lon=0, drop=True)
    return ds


def test_pole_rows_become_single_valued_where_the_data_are():
    grid, settings = grids.pole_rows(10.0), PLAIN | {"u": config.Variable()}
    codec, _ = codec_of(with_single_poles(grid, settings), grid, settings)
    assert codec.single_valued.tolist() == [[True, True], [False, False]]
    z = torch.randn(3, 2, *grid.shape)
    decoded = codec.decode(z)
    assert np.ptp(decoded["t"][:, [0, -1]], axis=2).max() == 0
    assert np.ptp(decoded["u"][:, [0, -1]], axis=2).min() > 1
    settled = codec.single_valued_poles(z)
    assert torch.equal(settled[:, 1], z[:, 1])
    assert torch.equal(settled[:, 0, 1:-1], z[:, 0, 1:-1])
    again = codec.decode(settled)
    assert again["t"] == pytest.approx(decoded["t"], rel=1e-6)


def test_a_pole_row_that_is_partly_missing_takes_the_mean_of_the_rest():
    grid = grids.pole_rows(10.0)
    ds = with_single_poles(grid, PLAIN)
    ds["t"][{"lat": 0, "lon": slice(0, 9)}] = np.nan
    codec, _ = codec_of(ds, grid, PLAIN)
    assert codec.single_valued.tolist() == [[True, True]]
    z = torch.randn(1, 1, *grid.shape)
    bare = replace(codec, single_valued=np.zeros((1, 2), bool))
    row, plain = codec.decode(z)["t"][0, 0], bare.decode(z)["t"][0, 0]
    assert np.isnan(row[:9]).all()
    assert row[9:] == pytest.approx(np.nanmean(plain), rel=1e-6)
    assert torch.isfinite(codec.single_valued_poles(z)).all()


def test_projection_after_the_poles_keeps_both():
    grid = grids.pole_rows(10.0)
    ds = with_single_poles(grid, PLAIN, dtype=np.float64)
    down, baseline = interpolation(grid, 4.0)
    codec, pairs = codec_of(ds, grid, PLAIN, baseline=baseline)
    y = down(pairs[0][0].astype(np.float64))
    matrices, pulled = codec.pull_back(down, y, pairs[0][1])
    projection = project(Separable(matrices), codec.projection_weights())
    z = codec.single_valued_poles(torch.randn(2, 1, *grid.shape, dtype=torch.float64), pairs[0][1])
    decoded = codec.decode(projection(z, pulled), pairs[0][1])["t"]
    assert down(decoded) == pytest.approx(np.broadcast_to(y, (2, *down.out_shape)), abs=1e-8)
    assert np.ptp(decoded[:, [0, -1]], axis=2).max() < 1e-9


def test_channels_without_a_coarse_counterpart_have_no_baseline():
    grid, settings = grids.box(6), PLAIN | {"u": config.Variable()}
    ds = made(grid, settings)
    _, interpolate = interpolation(grid)

    def baseline(x):
        b = interpolate(x)
        b[1] = np.nan
        return b

    codec, pairs = codec_of(ds, grid, settings, baseline=baseline)
    alone, _ = codec_of(ds, grid, settings)
    assert np.isnan(codec.baseline_mean).tolist() == [False, True]
    assert torch.allclose(codec.encode(*pairs[0])[0][1], alone.encode(pairs[0][0])[0][1], atol=1e-6)
    with pytest.raises(ValueError, match="t were trained as residuals"):
        codec.encode(pairs[0][0])


def test_a_baseline_with_gaps_is_replaced_by_its_mean_there():
    grid = grids.box(6)
    ds = made(grid, PLAIN)
    _, interpolate = interpolation(grid)

    def baseline(x):
        b = interpolate(x)
        b[:, 0] = np.nan
        return b

    codec, pairs = codec_of(ds, grid, PLAIN, baseline=baseline)
    z, present = codec.encode(*pairs[0])
    assert present.all()
    assert z[:, 0].abs().max() < 20  # a baseline of 0 K would leave 280 K, some 300 sd
    decoded = codec.decode(z[None], pairs[0][1])["t"][0]
    assert decoded == pytest.approx(ds["t"].values[0], rel=1e-6)


def test_each_sample_may_have_its_own_baseline():
    grid = grids.box(6)
    ds = made(grid, PLAIN)
    _, baseline = interpolation(grid)
    codec, pairs = codec_of(ds, grid, PLAIN, baseline=baseline)
    z = torch.stack([codec.encode(x, b)[0] for x, b in pairs])
    together = codec.decode(z, np.stack([b for _, b in pairs]))["t"]
    assert together == pytest.approx(ds["t"].values, rel=1e-6)


def test_the_state_gives_the_same_codec_back():
    grid, ds, _, _ = masked_case()
    _, baseline = interpolation(grid)
    codec, pairs = codec_of(ds.assign_coords(height=2.0), grid, PLAIN, baseline=baseline)
    entry, arrays = codec.state()
    back = FieldCodec.from_state(json.loads(json.dumps(entry)), arrays)
    assert torch.equal(back.encode(*pairs[0])[0], codec.encode(*pairs[0])[0])
    z = torch.randn(1, 1, *grid.shape)
    decoded = [c.dataset(c.decode(z, pairs[0][1]), {"member": None}) for c in (back, codec)]
    xr.testing.assert_identical(*decoded)
    assert back.leading_rms == codec.leading_rms


@pytest.mark.parametrize(
    ("value", "message"), [(np.float32(3.0), "t .channel 0. is constant"), (np.float32(np.nan), "missing everywhere")]
)
def test_a_channel_that_says_nothing_is_refused(value, message):
    grid = grids.box(4)
    ds = made(grid, PLAIN)
    ds["t"][:] = value
    with pytest.raises(SciffusionError, match=message):
        codec_of(ds, grid, PLAIN)


def test_no_case_and_wrong_dims_are_named():
    grid = grids.box(4)
    ds = made(grid, PLAIN)
    variables = target_variables(ds, PLAIN, grid.dims)
    with pytest.raises(SciffusionError, match="no training case"):
        fit_codec([], variables, grid)
    with pytest.raises(SciffusionError, match="dims"):
        stack(ds, variables, grid)
    with pytest.raises(SciffusionError, match="no dim 'q'"):
        target_variables(ds, PLAIN, ("q", "x"))
    other = Grid.from_dataset(grids.dataset(z=4, y=4, x=5), grid.dims)
    with pytest.raises(SciffusionError, match="shape"):
        stack(ds.isel(time=0), variables, other)
