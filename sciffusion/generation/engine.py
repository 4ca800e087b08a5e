"""Generating an ensemble into a store: only what is missing, written while the next members are drawn.

An item is one member of one case. Items are shared between processes by a rule of their numbers; each process takes
its items that have no marker yet, so a run that was killed goes on where it stopped, and so does another process for
it, at the next start or when it has finished its own. The emulator draws in micro-batches of a fixed size, so an item's
bytes do not depend on which others are missing.
"""

import logging
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch
import xarray as xr

from sciffusion import config, durations
from sciffusion.emulator import Drawing, Emulator
from sciffusion.errors import SciffusionError
from sciffusion.execution.device import resolve_device
from sciffusion.execution.precision import Precision
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.storage import Storage
from sciffusion.generation.closing import Closing
from sciffusion.generation.identity import identity
from sciffusion.generation.keep import Keep
from sciffusion.generation.plan import Plan
from sciffusion.generation.processes import Process
from sciffusion.generation.scoring import Scoring, judge_of, state_of
from sciffusion.generation.sizing import chosen, settled
from sciffusion.generation.target import Target, Wanted
from sciffusion.generation.trajectories import record_coherence
from sciffusion.generation.work import Work
from sciffusion.stages.conditions import Cases, Conditions

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
    precision: Precision = "auto",
    compile: bool | None = None,
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
        Of the networks: "float32", "bfloat16", "fp8" (perceptrons of transformers in 8 bits), or "auto": that of the
        store, else bfloat16 where a GPU has units for it. Fixed when the store is made.
    compile
        Whether the networks are compiled; None: as for the store, else where a GPU has more than ten minutes to work,
        and in fp8.
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
    plan, place = Plan.of(emulator, conditions, members, cases, time_coherence), _device(device, process)
    who = identity(
        emulator,
        plan.check.conditions,
        seed=seed,
        sampler=sampler,
        device=place,
        precision=precision,
        compiled=compile,
        batch_size=batch_size,
        storage=storage,
    )
    who |= {} if keep is None else {"keep": keep.to_json(plan.members)}
    who |= {} if plan.coherence is None else {"time_coherence": plan.coherence.to_json()}
    kept = None if keep is None else plan.members[: keep.members]
    wanted = Wanted(plan.template, plan.members, plan.dims, who, allow_mixed, fsync, kept)
    if target.finished(wanted):
        log.info("%s is complete already", target.path)
        return target.path
    drawing: Drawing = {"seed": seed, "sampler": sampler, "device": str(place), "precision": precision}
    judge = None if score_against is None else judge_of(plan.template, score_against)
    with target.unless_overtaken(wanted):
        items = ceil(plan.items / process.size)
        ensemble = target.prepare(process, wanted, lambda: chosen(emulator, plan.check, items, batch_size, drawing))
        drawing |= settled(ensemble.execution, emulator, place)
        closing = Closing(ensemble, keep, None if judge is None else Scoring(ensemble, judge))
        Work(
            ensemble,
            plan.members,
            len(plan.check.cases),
            draw=lambda items: emulator.draws(plan.check, plan.members, items=items, **drawing),
            begin=lambda: wanted.join(ensemble),
            closing=closing,
            verify=verify,
            progress=progress,
            until=until,
        ).run(process)
        if closing.rest() and ensemble.completed().all():
            target.publish(ensemble, kept, lambda: _measure(target, ensemble, closing, plan, kept))
            log.info("%s is complete", target.path)
        elif deadline is not None:
            _publish_part(target, ensemble, deadline)
        else:
            log.info("%s: this process is done, others are still making items", target.path)
    return target.path


def _measure(target: Target, ensemble: EnsembleStore, closing: Closing, plan: Plan, kept: Sequence[int] | None) -> None:
    """What is found out once, over all cases of the complete ensemble."""
    if closing.scoring is not None:
        closing.scoring.join(state_of(target.path))
    if plan.coherence is not None:
        record_coherence(ensemble, plan.coherence, plan.check.cases, len(plan.members if kept is None else kept))


def _publish_part(target: Target, ensemble: EnsembleStore, deadline: float) -> None:
    """Put what is complete in place. Raises SciffusionError when nothing is."""
    count, of = target.publish_part(ensemble), len(ensemble.members)
    if not count:
        what = f"no member was complete for all cases within {durations.clock(deadline)}"
        raise SciffusionError(what, "what was made is kept: the same command goes on")
    log.info("%s holds %d of %d members; the same command goes on with the others", target.path, count, of)


def _device(name: str | None, process: Process) -> torch.device:
    """The device asked for, else what there is; of several processes on one machine each has a GPU of its own."""
    device = resolve_device(name)
    if device.type != "cuda":
        return device
    if name in (None, "auto", "cuda") and process.size > 1:
        device = torch.device("cuda", process.local % torch.cuda.device_count())
    torch.cuda.set_device(device)  # so that nothing is put on another one by default
    return device
