"""How many items a network call takes, and whether to compile it: found once, before a store is made, and kept by it.

A member's last bits depend on them, so that memory is tried out before the first member, never afterwards.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil, prod
from typing import Any

import torch

from sciffusion.emulator import Drawing, Emulator, batch_of
from sciffusion.errors import SciffusionError
from sciffusion.execution.memory import microbatch
from sciffusion.stages.conditions import Check

__all__ = ["choose_batch", "chosen", "out_of_memory", "settled"]

log = logging.getLogger("sciffusion")
_MOST = 256  # items, and
_BUSY = 1 << 21  # cells of a call: larger ones are no faster, and the writing of a large last one is waited for
_TRIAL_STEPS = 3
_WORTH_COMPILING = 600.0  # seconds: compiling takes one to two minutes, and saves about a third


def chosen(emulator: Emulator, check: Check, items: int, size: int | None, settings: Drawing) -> dict[str, Any]:
    """What a new store leaves to the device: precision, micro-batch, and whether to compile."""
    device = torch.device(settings["device"] or "cpu")
    trial = partial(_trial, emulator, check, settings)
    size = choose_batch(trial, device, items=items, cells=prod(emulator.stage.codec.grid.shape), asked=size)
    steps = emulator.sampler(settings["sampler"]).steps
    calls = ceil(items / size) * steps / min(steps, _TRIAL_STEPS)
    precision = emulator.precision(settings["precision"], device)
    compiled = _worth_compiling(partial(trial, size), device, calls=calls, precision=precision)
    return {"precision": precision, "compiled": compiled, "batch_size": size}


def settled(execution: Mapping[str, Any], emulator: Emulator, device: torch.device) -> Drawing:
    """How the members of a store are drawn on ``device``. Raises SciffusionError where it cannot."""
    if emulator.precision(execution["precision"], device) != execution["precision"]:
        what = f"the ensemble is made in {execution['precision']}, which {device} does not have"
        raise SciffusionError(what, "go on with --precision bfloat16 --allow-mixed, or where it was begun")
    return {
        "precision": execution["precision"],
        "compile": execution["compiled"],
        "batch_size": execution["batch_size"],
    }


def _trial(emulator: Emulator, check: Check, settings: Drawing, size: int) -> None:
    """Draw ``size`` items in a few steps, to see whether there is memory for them, and how long it takes."""
    sampler = emulator.sampler(settings["sampler"])
    sampler = sampler.model_copy(update={"steps": min(sampler.steps, _TRIAL_STEPS)})
    options: Drawing = {**settings, "sampler": sampler, "batch_size": size, "graphs": False}
    for batch in emulator.draws(check, 1, items=[(0, 0)] * size, **options):
        batch.fields.wait()


def choose_batch(
    call: Callable[[int], Any], device: torch.device, *, items: int, cells: int = 1, asked: int | None = None
) -> int:
    """The micro-batch for ``items`` items of a grid of ``cells``: ``asked``, or a CPU's default, or what keeps a GPU
    busy and fits its memory.

    On a GPU ``call(size)`` draws that many items in few steps, as a trial; where memory does not suffice after all, the
    size is halved. The items are spread evenly over the calls, so that little of the last one is padding.

    Raises SciffusionError when what was asked for, or even one item, does not fit.
    """
    default = batch_of(asked, device)
    if device.type != "cuda":
        return default
    try:
        if asked:
            call(asked)
            return asked
        size = _even(items, microbatch(call, device, most=max(1, min(_MOST, _BUSY // cells))))
    except torch.OutOfMemoryError:
        raise out_of_memory(str(device), asked or 1) from None
    return _shrunk(call, size, device)


def _worth_compiling(call: Callable[[], Any], device: torch.device, *, calls: float, precision: str) -> bool:
    """Whether a job on a GPU that takes as long as ``calls`` of ``call`` is long enough to pay for compilation.

    Rounding to fp8 pays only where it is compiled into what comes before it.
    """
    if device.type != "cuda" or precision == "fp8":
        return device.type == "cuda"
    start = time.perf_counter()
    call()
    return calls * (time.perf_counter() - start) > _WORTH_COMPILING


def _even(items: int, most: int) -> int:
    """The smallest size, at most ``most``, that needs as few calls."""
    return ceil(items / ceil(items / most)) if items else most


def _shrunk(call: Callable[[int], Any], size: int, device: torch.device) -> int:
    """``size``, halved until ``call`` finds memory for it."""
    while True:
        try:
            call(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise out_of_memory(str(device), 1) from None
            log.warning("out of memory with %d items per call: going on with %d", size, size // 2)
            size //= 2
            torch.cuda.empty_cache()
        else:
            return size


def out_of_memory(device: str, size: int) -> SciffusionError:
    """The error for a call of ``size`` items that finds no memory."""
    mend = "free the device from other programs" + (
        ", or use one with more memory"
        if size == 1
        else ", or choose a smaller --batch-size; an ensemble that is begun keeps its own unless --allow-mixed is given"
    )
    return SciffusionError(f"{device}: out of memory with {size} items per network call", mend)
