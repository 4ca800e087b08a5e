"""Noise that a GPU draws is the host's to the bit, or it is not used.

The kernel runs without a GPU in Triton's interpreter: ``TRITON_INTERPRET=1 pytest tests/execution/test_normals.py``
where Triton is installed.
"""

import logging
import os
import re
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Barrier

import numpy as np
import pytest
import torch

from sciffusion import noise
from sciffusion.execution import normals
from sciffusion.execution.transfer import to_device
from sciffusion.noise import MemberNoise, NoiseKey, member_noise

interpreter = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs Triton and TRITON_INTERPRET=1",
)
# each of these runs in the interpreter and, marked, on a GPU
devices = pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=interpreter), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
GPU = torch.device("cuda", 0)
KEYS = [NoiseKey(seed, ("2026-03-25T00:00:00", 3, 0.5), 12, "denoiser", 2, "churn") for seed in range(4)]


def on(device, members, shape):
    return normals.drawn_on(torch.device(device), members, shape).cpu().numpy()


def assert_same_bits(there, here):
    np.testing.assert_array_equal(there.view(np.int32), here.view(np.int32), strict=True)


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    monkeypatch.setattr(normals, "_checked", {})


@devices
def test_a_long_stream_has_the_bits_of_numpy(device, monkeypatch):
    if device == "cpu":  # the interpreter is slow by the program
        monkeypatch.setattr(normals, "BLOCK", 1 << 14)
    members = [MemberNoise(((1.0, key),)) for key in KEYS[: 2 if device == "cpu" else 4]]
    shape = (1, 250_001) if device == "cpu" else (3, 1000, 1001)
    assert_same_bits(on(device, members, shape), member_noise(members, shape))


@devices
@pytest.mark.parametrize("grid", [(), (23,), (7, 9), (4, 5, 6)])
def test_whole_fields_of_any_rank(device, grid):
    members = [MemberNoise(((1.0, key),)) for key in KEYS]
    assert_same_bits(on(device, members, (3, *grid)), member_noise(members, (3, *grid)))


@devices
@pytest.mark.parametrize(
    ("grid", "size", "corners"),
    [
        ((23,), (10,), [(0,), (1,), (13,)]),
        ((7, 9), (3, 9), [(0, 0), (2, 0), (4, 0)]),  # whole rows
        ((7, 9), (7, 4), [(0, 0), (0, 3), (0, 5)]),
        ((7, 9), (1, 1), [(6, 8), (3, 2), (0, 7)]),
        ((4, 5, 6), (2, 3, 5), [(0, 0, 0), (1, 2, 1), (2, 1, 0)]),
        ((7, 9), (0, 9), [(3, 0)]),
        ((1 << 17, 1 << 17), (2, 3), [(1 << 16, 77), (99_999, 12_345)]),  # places beyond 32 bits
    ],
)
def test_windows_wherever_they_lie(device, grid, size, corners):
    windows = [tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True)) for corner in corners]
    members = [MemberNoise(((1.0, key),), window) for key, window in zip(KEYS, windows, strict=False)]
    assert_same_bits(on(device, members, (2, *grid)), member_noise(members, (2, *grid)))


@devices
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (0.1, 0.2, 0.3)])
@pytest.mark.parametrize("window", [None, (slice(5, 20), slice(1, 18))])
def test_sums_and_quotients(device, weights, window):
    """The noise of cases that hang together, and Student-t noise."""
    terms = [tuple((w, KEYS[(i + j) % 4]) for j, w in enumerate(weights)) for i in range(3)]
    members = [MemberNoise(own, window, divisor) for own, divisor in zip(terms, (1.0, 0.7, 1.9), strict=True)]
    assert_same_bits(on(device, members, (2, 23, 19)), member_noise(members, (2, 23, 19)))


@devices
def test_it_is_trusted_where_it_is_run(device):
    assert normals._refusal(torch.device(device)) is None


def test_what_is_tried_goes_into_the_far_tails():
    tried = [member_noise(members, shape) for shape, members in normals._PROBES]
    assert max(field.max() for field in tried) > 6.8
    assert min(field.min() for field in tried) < -6.9
    assert sum(field.size for field in tried) > 30_000


RANDOM123 = (  # counter, key, answer of philox4x64 with 10 rounds in its kat_vectors
    "0 0 0 0 0 0 16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
    6 * "ffffffffffffffff " + "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89 452821e638d01377 be5466cf34e90c6c"
    " a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
)


def launched(name, device, programs, out, *words, block):
    """What a kernel of normal_parts makes of arrays of words."""
    from tests.execution import normal_parts

    given = [torch.from_numpy(array.view(np.int64)).to(device) for array in words]
    made = torch.zeros_like(out, device=device)
    getattr(normal_parts, name)[(programs,)](*given, made, BLOCK=block, enable_fp_fusion=False)
    return made.cpu().numpy()


@devices
def test_the_generator_gives_the_known_answers_of_random123(device):
    rows = np.array([[int(word, 16) for word in line.split()] for line in (*RANDOM123, RANDOM123[0])], np.uint64)
    given, answers = np.ascontiguousarray(rows[:, :6]), rows[:, 6:]
    made = launched("philox", device, 1, torch.zeros(4, 4, dtype=torch.int64), given, block=4)
    np.testing.assert_array_equal(made.view(np.uint64), answers)


@devices
def test_words_are_those_of_numpy_at_any_place(device):
    places = np.array([*range(60), 2**40 + 1, 2**40 + 2, 2**62 - 1, 2**63 - 1], np.uint64)
    key = KEYS[0].words()
    out = torch.zeros(64, dtype=torch.int64)
    made = launched("words", device, 1, out, np.array(key, np.uint64), places, block=64)
    expected = [noise._raw(key, int(place), 1)[0] for place in places]
    np.testing.assert_array_equal(made.view(np.uint64), np.array(expected, np.uint64))


@devices
def test_the_transform_of_any_word_has_the_bits_of_numpy(device):
    """Tails of every size, the thresholds between the parts of the transform and of the logarithm, the extremes."""
    rng, near, block = np.random.default_rng(0), np.arange(-300, 300) * 2048, 4096 if device == "cpu" else 256
    any_size = rng.integers(0, 2**63, 200_000, dtype=np.uint64) >> rng.integers(0, 53, 200_000, dtype=np.uint64)
    thresholds = [np.exp(-25.0), 0.075, *(2.0 ** -np.arange(2, 50) * noise.SQRT_HALF)]
    edges = np.concatenate([(int(p * 2**64) + near).clip(0) for p in thresholds]).astype(np.uint64)
    words = np.concatenate([any_size, edges, np.array([0, 2**63 - 1], np.uint64)])
    words = np.resize(np.concatenate([words, words | np.uint64(2**63)]), (-(-2 * words.size // block) * block,))
    made = launched("transform", device, words.size // block, torch.zeros(words.size), words, block=block)
    assert_same_bits(made, noise._transform(words))


@pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1", reason="needs Triton, not its interpreter"
)
def test_compiled_for_a_gpu_nothing_is_fused_and_no_constant_is_rounded(tmp_path, monkeypatch):
    """No GPU is needed for that. A product and a sum that are marked ``rn`` are never joined later."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from sciffusion.execution.normal_kernel import draw

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    words = ["channel", "plane", "row"]
    signature = {"out": "*fp32", "table": "*i64", **dict.fromkeys(["cells", "depth", "height", "width"], "i32")}
    signature |= {**dict.fromkeys(words, "i64"), "terms": "constexpr", "BLOCK": "constexpr"}
    source = ASTSource(fn=draw, signature=signature, constexprs={"terms": 2, "BLOCK": normals.BLOCK})
    text = compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}).asm["ptx"]
    operations = set(re.findall(r"\b(?:fma|mad|mul|add|sub|div|sqrt|rcp|rsqrt)\S*f64", text))
    assert operations == {f"{name}.rn.f64" for name in ("mul", "add", "sub", "div", "sqrt")}
    found = {abs(struct.unpack(">d", bytes.fromhex(digits))[0]) for digits in re.findall(r"0d([0-9A-F]{16})", text)}
    tables = (noise.A, noise.B, noise.C, noise.D, noise.E, noise.F, noise.ATANH)
    assert {*sum(tables, ()), noise.LN2, noise.SQRT_HALF, 2.0**-53, 0.425, 0.180625, 1.6, 5.0} <= found


def honest(device, members, shape):
    return torch.from_numpy(member_noise(members, shape))


def one_wrong_bit(device, members, shape):
    drawn = member_noise(members, shape)
    drawn.reshape(-1).view(np.int32)[-1] ^= 1
    return torch.from_numpy(drawn)


def broken(device, members, shape):
    raise RuntimeError("no image for this device\nand more")


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_kernel_that_draws_as_numpy_does_is_trusted_without_a_word(monkeypatch, caplog):
    monkeypatch.setattr(normals, "drawn_on", honest)
    with caplog.at_level(logging.INFO, "sciffusion"):
        assert normals.draws_noise(GPU)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("kernel", "reason"), [(one_wrong_bit, "some bits"), (broken, r"RuntimeError: no image for this device)")]
)
def test_another_one_is_not_and_the_log_says_so_once(monkeypatch, caplog, kernel, reason):
    """In however many threads at once."""
    monkeypatch.setattr(normals, "drawn_on", kernel)
    barrier = Barrier(3)

    def ask(_):
        barrier.wait()
        return normals.draws_noise(GPU)

    with caplog.at_level(logging.INFO, "sciffusion"), ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [False, False, False]
        assert not normals.draws_noise(GPU)
    (line,) = lines(caplog)
    assert reason in line
    assert "cuda:0" in line


def test_without_triton_the_host_draws(monkeypatch, caplog):
    for name in [*(name for name in sys.modules if name.split(".")[0] == "triton"), "triton"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "sciffusion.execution.normal_kernel", raising=False)
    with caplog.at_level(logging.INFO, "sciffusion"):
        assert not normals.draws_noise(GPU)
    (line,) = lines(caplog)
    assert "triton" in line


def test_memory_that_is_short_is_no_reason_to_distrust(monkeypatch):
    """Whoever wanted too large a batch takes a smaller one, and is asked again."""

    def full(device, members, shape):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(normals, "drawn_on", full)
    with pytest.raises(torch.OutOfMemoryError):
        normals.draws_noise(GPU)
    monkeypatch.setattr(normals, "drawn_on", honest)
    assert normals.draws_noise(GPU)


def test_a_cpu_is_not_asked(monkeypatch):
    monkeypatch.setattr(normals, "drawn_on", broken)
    assert not normals.draws_noise(torch.device("cpu"))


@pytest.mark.gpu
def test_what_is_on_a_gpu_stays_there():
    there = torch.zeros(3, device="cuda")
    assert to_device(there, there.device) is there


@pytest.mark.gpu
def test_the_host_does_not_wait_for_a_gpu_that_draws():
    """Synchronising calls raise in this mode."""
    members = [MemberNoise(((1.0, key),)) for key in KEYS]
    normals.drawn_on(GPU, members, (2, 64, 64))  # compiled
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = normals.drawn_on(GPU, members, (2, 64, 64))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same_bits(drawn.cpu().numpy(), member_noise(members, (2, 64, 64)))
