"""Generating an ensemble into a store: only what is missing, written while the next members are drawn.

An item is one member of one case. Items are shared between processes by a rule of their numbers; each process takes
its items that have no marker yet, so a run that was killed goes on where it stopped, and so does another process for
it. The emulator draws in micro-batches of a fixed size, so an item's bytes do not depend on which others are missing.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sciffusion import config, stopping
from sciffusion.emulator import DEFAULT_BATCH, Cases, Check, Conditions, Emulator
from sciffusion.errors import SciffusionError
from sciffusion.execution.device import resolve_device
from sciffusion.fields.cases import Case, encode_label
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.generation.identity import identity
from sciffusion.generation.processes import Process
from sciffusion.generation.progress import Progress
from sciffusion.generation.target import Target
from sciffusion.generation.writer import Writer
from sciffusion.stages.drawing import Drawn
from sciffusion.stopping import Stopped

__all__ = ["generate"]

log = logging.getLogger("sciffusion")


def generate(
    emulator: Emulator,
    conditions: Conditions,
    store: Path | str,
    members: int | Sequence[int] = 8,
    *,
    cases: Cases = None,
    seed: int = 0,
    sampler: config.Sampler | str | None = None,
    resume: bool = True,
    overwrite: bool = False,
    verify: bool = True,
    batch_size: int | None = None,
    device: str | None = None,
    progress: bool = True,
    fsync: bool = False,
) -> Path:
    """Generate an ensemble into a Zarr store or a NetCDF file, larger than memory, and return its path.

    Calling it again with the same arguments makes what is missing; with more members it adds them. Under torchrun or
    srun each process makes its share.

    Parameters
    ----------
    emulator
        What `sciffusion.load` returns.
    conditions
        One Dataset for every condition, or a mapping by condition name.
    store
        Output: a name ending in .nc gives NetCDF4, any other Zarr.
    members
        How many, or their numbers.
    cases
        Labels or slices per case dim, as in ``Dataset.sel``, or `Case` objects, such as those of another emulator's
        check; None takes all.
    sampler
        Settings or name of a solver; None takes the emulator's own.
    resume
        Go on with a store that exists; otherwise it is refused.
    overwrite
        Replace what exists, once the new ensemble is complete.
    verify
        Compare what is complete already with its checksums, and make damaged items again.
    batch_size
        (case, member) items per network call; None takes that of the store, else 4 on a CPU and 16 on a GPU.
    fsync
        Wait for the disk after every item: safe against power loss too, but slower.

    Raises
    ------
    SciffusionError
        For conditions that do not fit, an output that exists or was made with other settings, a full disk. Complete
        members and a previous output stay as they were.
    KeyboardInterrupt, Stopped
        After Ctrl-C, or SIGTERM or SIGUSR1, when the items in flight are written; the same call resumes.
    """
    target, process = Target(store, overwrite=overwrite, resume=resume), Process.here()
    check = emulator.check(conditions, cases)
    _report(check)
    check, template, dims = _ordered(check, emulator)
    place = _device(device, process)
    size = batch_size or target.stored_identity().get("batch_size") or DEFAULT_BATCH.get(place.type, 4)
    who = identity(emulator, check.conditions, seed=seed, sampler=sampler, batch_size=size, device=place)
    numbers = _numbers(members)
    if target.finished(template, numbers, who):
        log.info("%s is complete already", target.path)
        return target.path
    ensemble = target.prepare(process, template, numbers, dims, who, fsync=fsync)
    own = [(c, m) for c in range(len(check.cases)) for m in numbers if process.mine(c, m)]
    todo = _missing(ensemble, own, verify)

    def draw() -> Iterable[Drawn]:
        return emulator.draws(
            check, numbers, seed=seed, sampler=sampler, batch_size=size, device=str(place), items=todo
        )

    if todo:
        number = {case.labels: index for index, case in enumerate(check.cases)}
        _fill(ensemble, draw, number, dims, Progress(len(own), len(own) - len(todo), show=progress))
    if ensemble.completed().all():
        target.publish(ensemble)
        log.info("%s is complete", target.path)
    else:
        log.info("%s: this process is done, others still have items to make", target.path)
    return target.path


def _ordered(check: Check, emulator: Emulator) -> tuple[Check, xr.Dataset, tuple[str, ...]]:
    """The check with its cases in the store's order, which is C order over the case dims; the template; these dims."""
    template, dims = emulator.template(check), check.cases[0].dims
    columns = [{encode_label(value): i for i, value in enumerate(template[dim].values)} for dim in dims]

    def place(case: Case) -> tuple[int, ...]:
        return tuple(column[label] for column, label in zip(columns, case.labels, strict=True))

    if len(check.cases) != prod(map(len, columns)):
        what = f"{len(check.cases)} cases do not fill {' x '.join(f'{template.sizes[dim]} {dim}' for dim in dims)}"
        raise SciffusionError(what, "choose all combinations of labels, or generate one store for each")
    return replace(check, cases=sorted(check.cases, key=place)), template, dims


def _fill(
    store: EnsembleStore,
    draw: Callable[[], Iterable[Drawn]],
    number: Mapping[tuple[Any, ...], int],
    dims: Sequence[str],
    progress: Progress,
) -> None:
    """Draw; decode and write in another thread. After an interruption what was drawn is still written."""

    def write(batch: Drawn) -> None:
        for part in batch.datasets():
            for case, member, arrays in _items(part, number, dims):
                store.write(case, member, arrays)
                progress.update(1)

    try:
        with stopping.listening(), Writer(write) as writer:
            for batch in draw():
                writer.put(batch)
                stopping.check()
    except (KeyboardInterrupt, Stopped):
        left = int((~store.completed()).sum())
        log.warning("interrupted; %s is intact, %d items are missing: the same command goes on", store.path, left)
        raise
    finally:
        progress.close()


def _items(
    part: xr.Dataset, number: Mapping[tuple[Any, ...], int], dims: Sequence[str]
) -> Iterable[tuple[int, int, dict[str, np.ndarray]]]:
    """The items of a drawn Dataset (member, *case dims, *channel dims, *grid) as (case, member, arrays)."""
    labels = [[encode_label(value) for value in part[dim].values] for dim in dims]
    for index in np.ndindex(*map(len, labels)):
        case = number[tuple(column[i] for column, i in zip(labels, index, strict=True))]
        place = dict(zip(dims, index, strict=True))
        for row, member in enumerate(part["member"].values):
            chosen = part.isel({"member": row, **place})
            yield case, int(member), {str(name): field.values for name, field in chosen.data_vars.items()}


def _missing(store: EnsembleStore, own: Sequence[tuple[int, int]], verify: bool) -> list[tuple[int, int]]:
    """Own items that are not complete, or whose files do not agree with their checksums."""
    row, done = {member: index for index, member in enumerate(store.members)}, store.completed()
    complete = [(case, member) for case, member in own if done[row[member], case]]
    faults = store.verify(complete, checksums=verify)
    for fault in faults:
        log.warning("case %d, member %d: %s; it is made again", fault.case, fault.member, fault.what)
    store.withdraw(faults)
    whole = set(complete) - {(fault.case, fault.member) for fault in faults}
    if whole:
        log.info("%d of %d items are complete already", len(whole), len(own))
    return [item for item in own if item not in whole]


def _numbers(members: int | Sequence[int]) -> list[int]:
    numbers = list(range(members)) if isinstance(members, int) else [int(member) for member in members]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise SciffusionError(f"members {members!r}", "give a positive count, or different numbers from 0")
    return numbers


def _device(name: str | None, process: Process) -> torch.device:
    """The device asked for, else this process's own GPU, else what there is."""
    if name is None and process.size > 1 and torch.cuda.is_available():
        return torch.device("cuda", process.local % torch.cuda.device_count())
    return resolve_device(name)


def _report(check: Check) -> None:
    """Say what the dry run found."""
    for message in check.messages:
        log.info(message)
    flagged = list(check.outside.items())
    for labels, what in flagged[:5]:
        log.warning("outside the training range in %s: %s", ", ".join(map(str, labels)), "; ".join(what))
    if len(flagged) > 5:
        log.warning("outside the training range in %d more cases", len(flagged) - 5)
