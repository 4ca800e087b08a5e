"""Generating an ensemble into a store: only what is missing, written while the next members are drawn.

An item is one member of one case. Items are shared between processes by a rule of their numbers; each process takes
its items that have no marker yet, so a run that was killed goes on where it stopped, and so does another process for
it, at the next start or when it has finished its own. The emulator draws in micro-batches of a fixed size, so an item's
bytes do not depend on which others are missing.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from sciffusion import config, durations
from sciffusion.emulator import Cases, Check, Conditions, Drawing, Emulator
from sciffusion.errors import SciffusionError
from sciffusion.execution.device import resolve_device
from sciffusion.execution.precision import Precision, precision_name
from sciffusion.fields.cases import Case, encode_label
from sciffusion.fields.coherence import Coherence
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.storage import Storage
from sciffusion.generation.closing import Closing
from sciffusion.generation.identity import identity
from sciffusion.generation.keep import Keep
from sciffusion.generation.processes import Process
from sciffusion.generation.scoring import Scoring, state_of
from sciffusion.generation.sizing import choose_batch, worth_compiling
from sciffusion.generation.target import Target, Wanted
from sciffusion.generation.trajectories import record_coherence
from sciffusion.generation.work import Work
from sciffusion.stages.drawing import Drawn

__all__ = ["generate"]

log = logging.getLogger("sciffusion")
_TRIAL_STEPS = 3


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
    precision: Precision = "auto",
    compiled: bool | None = None,
    allow_mixed: bool = False,
    share: tuple[int, int] = (0, 1),
    storage: Storage | None = None,
    time_coherence: str | float | None = None,
    keep: Keep | str | None = None,
    score_against: xr.Dataset | None = None,
    deadline: float | None = None,
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
        (case, member) items per network call; None takes that of the store, else what fits a GPU's memory, or 4 on a
        CPU. Fixed when the store is made.
    precision
        Of the networks: "float32", "bfloat16", or "auto": that of the store, else bfloat16 where a GPU has units for
        it. Fixed when the store is made.
    compiled
        Whether the networks are compiled; None: as for the store, else where a GPU has more than ten minutes to work.
    allow_mixed
        Go on with a store that was begun on another device model, or with other versions or another batch size.
        New members then agree with those that it would have got to rounding errors only; the store records it.
    share
        (i, n): make share i of n, counted from 0. For jobs that fill one store together, such as a job array; within a
        job torchrun or srun share the work further.
    storage
        How numbers are kept: rounded, packed, in smaller chunks. None keeps them as they are, with one member of one
        case in a chunk per variable.
    time_coherence
        Correlation of the noise of consecutive cases (0.9), or the time in which it falls to 1/e ("12h"): members are
        then trajectories as far as their noise goes. "0.9/6h" names the step too; otherwise it is the conditions'.
        What the members' deviations from their mean have at lag 1 is measured and written into the attributes.
    keep
        Statistics instead of members, ``"mean,std,quantiles,members:16"``: the group ``statistics`` of the store holds
        them for every case, exact over all members; of these only the first 16 stay.
    score_against
        The truth: every case is scored when its members are complete; the sums lie beside the store, for `evaluate`.
    deadline
        Seconds from now after which no batch is begun and the members that are complete for all cases are put in
        place, at once. Calling it again goes on.
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
    until = None if deadline is None else time.monotonic() + deadline
    keep = Keep.parse(keep) if isinstance(keep, str) else keep
    if keep is not None and deadline is not None:
        raise SciffusionError("statistics with a deadline", "they need all members: give one of keep and deadline")
    target = Target(store, overwrite=overwrite, resume=resume, making=keep is not None or deadline is not None)
    process = Process.here().within(*share)
    check = emulator.check(conditions, cases)
    _report(check)
    check, template, dims = _ordered(check, emulator)
    place, numbers = _device(device, process), _numbers(members)
    who = identity(
        emulator,
        check.conditions,
        seed=seed,
        sampler=sampler,
        device=place,
        precision=precision,
        compiled=compiled,
        batch_size=batch_size,
        storage=storage,
    )
    kept = None if keep is None else numbers[: keep.members]
    if keep is not None:
        who["keep"] = keep.to_json(numbers)
    coherence = None if time_coherence is None else _coherence(time_coherence, conditions, check)
    if coherence is not None:
        check = replace(check, cases=[coherence.applied(case) for case in check.cases])
        template = template.assign_attrs(time_coherence=str(coherence))
        who["time_coherence"] = coherence.to_json()
    wanted = Wanted(template, numbers, dims, who, allow_mixed, fsync, kept)
    if target.finished(wanted):
        log.info("%s is complete already", target.path)
        return target.path
    settings: Drawing = {"seed": seed, "sampler": sampler, "device": str(place), "precision": precision}
    count = ceil(len(check.cases) * len(numbers) / process.size)
    with target.unless_overtaken(wanted):
        ensemble = target.prepare(process, wanted, lambda: _chosen(emulator, check, count, batch_size, settings))
        settings |= _settled(ensemble.execution)

        def draw(items: Sequence[tuple[int, int]]) -> Iterable[Drawn]:
            return emulator.draws(check, numbers, items=items, **settings)

        scoring = None if score_against is None else Scoring(ensemble, score_against)
        closing = Closing(ensemble, keep, scoring)
        Work(
            ensemble,
            numbers,
            {case.labels: index for index, case in enumerate(check.cases)},
            dims,
            draw,
            begin=lambda: wanted.join(ensemble),
            closing=closing,
            verify=verify,
            progress=progress,
            until=until,
        ).run(process)

        def finish() -> None:
            if scoring is not None:
                scoring.join(state_of(target.path))
            if coherence is not None:
                record_coherence(ensemble, coherence, check.cases, len(numbers if kept is None else kept))

        if closing.rest() and ensemble.completed().all():
            target.publish(ensemble, kept, finish)
            log.info("%s is complete", target.path)
        elif deadline is not None:
            _publish_part(target, ensemble, deadline)
        else:
            log.info("%s: this process is done, others are still making items", target.path)
    return target.path


def _coherence(asked: str | float, conditions: Conditions, check: Check) -> Coherence:
    """What was asked for, in steps of all conditions given, not only of the cases chosen."""
    given = [conditions] if isinstance(conditions, xr.Dataset) else list(conditions.values())
    coherence = Coherence.parse(str(asked), check.cases, [*given, *check.conditions.values()])
    log.info("time coherence: %s", coherence)
    return coherence


def _publish_part(target: Target, ensemble: EnsembleStore, deadline: float) -> None:
    """Put what is complete in place. Raises SciffusionError when nothing is."""
    count, of = target.publish_part(ensemble), len(ensemble.members)
    if not count:
        what = f"no member was complete for all cases within {durations.clock(deadline)}"
        raise SciffusionError(what, "what was made is kept: the same command goes on")
    log.info("%s holds %d of %d members; the same command goes on with the others", target.path, count, of)


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


def _chosen(emulator: Emulator, check: Check, items: int, size: int | None, settings: Drawing) -> dict[str, Any]:
    """What a new store leaves to the device: precision, micro-batch, and whether to compile."""
    device = torch.device(settings["device"] or "cpu")
    trial = partial(_trial, emulator, check, settings)
    size = choose_batch(trial, device, items=items, cells=prod(emulator.stage.codec.grid.shape), asked=size)
    steps = emulator.sampler(settings["sampler"]).steps
    calls = ceil(items / size) * steps / min(steps, _TRIAL_STEPS)
    compiled = worth_compiling(partial(trial, size), device, calls=calls)
    return {"precision": precision_name(settings["precision"], device), "compiled": compiled, "batch_size": size}


def _settled(execution: Mapping[str, Any]) -> Drawing:
    """How the members of a store are drawn."""
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


def _numbers(members: int | Sequence[int]) -> list[int]:
    numbers = list(range(members)) if isinstance(members, int) else [int(member) for member in members]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise SciffusionError(f"members {members!r}", "give a positive count, or different numbers from 0")
    return numbers


def _device(name: str | None, process: Process) -> torch.device:
    """The device asked for, else what there is; of several processes on one machine each has a GPU of its own."""
    device = resolve_device(name)
    if device.type != "cuda":
        return device
    if name in (None, "auto", "cuda") and process.size > 1:
        device = torch.device("cuda", process.local % torch.cuda.device_count())
    torch.cuda.set_device(device)  # so that nothing is put on another one by default
    return device


def _report(check: Check) -> None:
    """Say what the dry run found."""
    for message in check.messages:
        log.info(message)
    flagged = list(check.outside.items())
    for labels, what in flagged[:5]:
        log.warning("outside the training range in %s: %s", ", ".join(map(str, labels)), "; ".join(what))
    if len(flagged) > 5:
        log.warning("outside the training range in %d more cases", len(flagged) - 5)
