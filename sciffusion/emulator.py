"""The emulator: stages in a row, from conditions as xarray to ensemble members as xarray.

An emulator is loaded from a folder, checked against the conditions it is given, and sampled. Its members depend on the
seed, the case and the member's number; not on batch size, order or which other members are asked for.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
import xarray as xr

import sciffusion
from sciffusion import config, model_folder
from sciffusion.errors import SciffusionError
from sciffusion.execution.accelerate import Execution
from sciffusion.execution.device import resolve_device
from sciffusion.execution.limits import AllocationLimit
from sciffusion.execution.precision import Precision
from sciffusion.fields import axes
from sciffusion.fields.cases import Case, cases_of, encode_label
from sciffusion.stages.base import Stage
from sciffusion.stages.drawing import Drawn, draws
from sciffusion.stages.items import Prepared
from sciffusion.stages.saved import stage_from_state, state_of

__all__ = ["DEFAULT_BATCH", "Check", "Drawing", "Emulator", "load", "member_numbers"]

Conditions = xr.Dataset | Mapping[str, xr.Dataset]
Cases = Mapping[str, Any] | Sequence[Case] | None
# Memory that building a model may take, relative to its weights (bfloat16 ones become float32) and beside them.
_EXPANSION, _BESIDE = 8, 2**30
DEFAULT_BATCH = {"cpu": 4, "cuda": 16}


class Drawing(TypedDict, total=False):
    """How members are drawn; see `Emulator.sample`."""

    cases: Cases
    seed: int
    sampler: config.Sampler | str | None
    batch_size: int | None
    device: str | None
    precision: Precision
    compile: bool
    graphs: bool


@dataclass(frozen=True)
class Check:
    """What would be used for sampling: conditions by name, the cases they define, and what is remarkable.

    ``messages`` says what was converted or is unused; ``outside`` lists, per case label, the variables beyond their
    range in training.
    """

    conditions: dict[str, xr.Dataset]
    cases: list[Case]
    messages: list[str] = field(default_factory=list)
    outside: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: {', '.join(map(str, data.data_vars))}" for name, data in self.conditions.items()]
        lines += [f"{len(self.cases)} cases", *self.messages]
        lines += [f"outside the training range in {label}: {'; '.join(what)}" for label, what in self.outside.items()]
        return "\n".join(lines)


class Emulator:
    """A trained chain of stages. Make one with `sciffusion.load` or `sciffusion.train`.

    ``card`` holds what a reader of the model wants to know: recipe, provenance, training cases, licence.
    """

    def __init__(self, stages: Sequence[Stage], card: Mapping[str, Any]) -> None:
        self.stages = list(stages)
        self.card = dict(card)
        self._hash = ""

    @property
    def stage(self) -> Stage:
        """The stage whose fields are the answer."""
        return self.stages[-1]

    def __repr__(self) -> str:
        codec = self.stage.codec
        size = " x ".join(f"{dim} {n}" for dim, n in zip(codec.grid.dims, codec.grid.shape, strict=True))
        chain = " -> ".join(f"{stage.name} ({stage.kind})" for stage in self.stages)
        return f"<sciffusion.Emulator {', '.join(codec.names)} on {size}: {chain}>"

    # --- on disk

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write ``model.json`` and ``weights.safetensors``; network weights are stored in ``dtype``."""
        description: dict[str, Any] = {"card": self.card, "stages": [], "output": self.stage.name}
        tensors: dict[str, torch.Tensor] = {}
        for stage in self.stages:
            entry, arrays = state_of(stage, dtype)
            description["stages"].append(entry)
            tensors.update({f"{stage.name}.{name}": value for name, value in arrays.items()})
        model_folder.write_model(Path(folder), description, tensors)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Emulator":
        """Read a model folder, or the run folder that contains one. Runs no code from it.

        Raises SciffusionError for a folder that is missing, incomplete, altered or of another version.
        """
        path = Path(folder)
        path = path / "emulator" if (path / "emulator" / "model.json").is_file() else path
        description, tensors = model_folder.read_model(path)
        stages: list[Stage] = []
        with AllocationLimit(_EXPANSION * sum(value.nbytes for value in tensors.values()) + _BESIDE, str(path)):
            for entry in description["stages"]:
                prefix = f"{entry['name']}."
                own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
                earlier = {stage.name: stage for stage in stages}
                stages.append(stage_from_state(entry, own, earlier))
        emulator = cls(stages, description["card"])
        emulator._hash = description["digest"]
        return emulator

    def identity(self) -> dict[str, Any]:
        """What an ensemble must agree on to be continued: the model, apart from seed and sampler."""
        return {"model": self._hash or self._state_hash(), "recipe": self.card.get("recipe", "")}

    def _state_hash(self) -> str:
        states = [state_of(stage) for stage in self.stages]
        digests = [f"{name}{value.float().sum().item():.9g}" for _, arrays in states for name, value in arrays.items()]
        return model_folder.digest({"stages": [entry for entry, _ in states], "tensors": digests})

    # --- conditions

    def check(self, conditions: Conditions, cases: Cases = None) -> Check:
        """Dry run: which data serve which condition, what is converted, missing, or outside the training range.

        Raises SciffusionError when sampling would be impossible.
        """
        wanted = {
            name: conditioner
            for stage in self.stages
            for name, conditioner in stage.conditioners.items()
            if conditioner.needs_data
        }
        given = self._by_name(conditions, list(wanted))
        asked = dict(cases) if isinstance(cases, Mapping) else {}
        ready, messages = {}, []
        for name, conditioner in wanted.items():
            part = given[name] if conditioner.looks_back else _selected(given[name], asked)
            ready[name], notes = conditioner.accept(part)
            messages += notes
        labels = _left_over(asked, given.values(), ready.values())
        if cases is None or isinstance(cases, Mapping):
            ready = {name: data if wanted[name].looks_back else _selected(data, labels) for name, data in ready.items()}
            cases = self._cases({n: _selected(d, asked) if wanted[n].looks_back else d for n, d in ready.items()})
        found = [case for case in cases if all(wanted[name].serves(data, case) for name, data in ready.items())]
        if not found:
            raise SciffusionError("no case has the earlier states that it needs", "give data that begin earlier")
        outside = {}
        for case in found:
            notes = [n for name, data in ready.items() for n in wanted[name].outside(data, case)]
            if notes:
                outside[case.labels] = notes
        return Check(ready, found, messages, outside)

    def _by_name(self, conditions: Conditions, wanted: list[str]) -> dict[str, xr.Dataset]:
        if isinstance(conditions, xr.Dataset):
            return dict.fromkeys(wanted, conditions)
        missing = [name for name in wanted if name not in conditions]
        if missing:
            raise SciffusionError(
                f"no data for the condition {missing[0]!r}", f"pass a mapping with {', '.join(map(repr, wanted))}"
            )
        return {name: conditions[name] for name in wanted}

    def _cases(self, ready: Mapping[str, xr.Dataset]) -> list[Case]:
        """The cases of the conditions: those of the condition with the most case dims."""
        if not ready:
            return [Case()]
        found = [cases_of(data, self._condition(name).core_dims) for name, data in ready.items()]
        return max(found, key=lambda cases: (len(cases[0].dims) if cases else 0, len(cases)))

    def _condition(self, name: str) -> Any:
        return next(stage.conditioners[name] for stage in self.stages if name in stage.conditioners)

    # --- sampling

    def sample(
        self, conditions: Conditions | Check, members: int | Sequence[int] = 8, **options: Unpack[Drawing]
    ) -> xr.Dataset:
        """Draw an ensemble into memory: a CF Dataset (member, *case dims, *grid).

        Parameters
        ----------
        conditions
            One Dataset that serves every condition, or a mapping by condition name.
        members
            How many, or their numbers: member 7 is the same whichever others are asked for.
        cases
            Labels or slices per case dim, as in ``Dataset.sel``, under its name in the conditions or in the training
            data; None takes all.
        seed
            Of the noise; 0.
        sampler
            Settings, or the name of a solver; None takes the emulator's own.
        batch_size
            (case, member) items per network call.
        device
            "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        precision
            "auto": networks in bfloat16 where a GPU has units for it, otherwise in float32; "float32", "bfloat16".
        compile
            Whether to compile the networks: a minute at the start, for long jobs.
        graphs
            Whether to record their calls as CUDA graphs (yes).

        Raises
        ------
        SciffusionError
            For conditions that do not fit; see `check`.
        """
        check = self._checked(conditions, options)
        numbers = member_numbers(members)
        result = self.stage.blank({"member": _member_coordinate(numbers), **self._leading(check)}, filled=True)
        for part in self.stream(check, numbers, **options):
            place = {dim: _index(result, part, dim) for dim in ("member", *_dims(check))}
            for name in part.data_vars:
                result[name][place] = part[name].variable.transpose(*result[name].dims)
        flags = self._training_cases(check)
        settings = {"seed": options.get("seed", 0), "sampler": self.sampler(options.get("sampler"))}
        return result.assign_coords(flags).assign_attrs(self.attributes(**settings))

    def stream(
        self,
        conditions: Conditions | Check,
        members: int | Sequence[int] = 8,
        *,
        items: Sequence[tuple[int, int]] | None = None,
        **options: Unpack[Drawing],
    ) -> Iterator[xr.Dataset]:
        """Draw members one batch after the other; each Dataset holds complete members of one case.

        ``items`` restricts the work to (case number, member) pairs. Batches have a fixed size, the last one padded,
        so that a member's bytes do not depend on how many others are drawn.
        """
        waiting: Drawn | None = None
        for batch in self.draws(conditions, members, items=items, **options):
            if waiting is not None:  # a GPU draws this batch while the one before is decoded
                yield from waiting.datasets()
            waiting = batch
        if waiting is not None:
            yield from waiting.datasets()

    def draws(
        self,
        conditions: Conditions | Check,
        members: int | Sequence[int] = 8,
        *,
        items: Sequence[tuple[int, int]] | None = None,
        **options: Unpack[Drawing],
    ) -> Iterator[Drawn]:
        """As `stream`, but whole batches that are still to be decoded, by another thread for instance."""
        check = self._checked(conditions, options)
        place = self.ready(**options)
        size = options.get("batch_size") or DEFAULT_BATCH.get(place.type, 4)
        pairs = list(items) if items is not None else list(product(range(len(check.cases)), member_numbers(members)))

        def prepare(number: int) -> Prepared:
            return self.stage.prepare(check.conditions, check.cases[number])

        settings = self.sampler(options.get("sampler"))
        yield from draws(self.stage, prepare, pairs, size=size, seed=options.get("seed", 0), sampler=settings)

    def ready(self, **options: Unpack[Drawing]) -> torch.device:
        """Bring the networks into the form that ``options`` ask for; the device that they are on.

        Raises TypeError for an option that does not exist.
        """
        if unknown := options.keys() - Drawing.__annotations__:
            raise TypeError(
                f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(Drawing.__annotations__)}"
            )
        place = resolve_device(options.get("device"))
        execution = Execution(
            options.get("precision", "auto"), compile=options.get("compile", False), graphs=options.get("graphs", True)
        )
        for stage in self.stages:
            stage.ready(place, execution)
        return place

    def _checked(self, conditions: Conditions | Check, options: Drawing) -> Check:
        return conditions if isinstance(conditions, Check) else self.check(conditions, options.get("cases"))

    def sampler(self, sampler: config.Sampler | str | None = None) -> config.Sampler:
        """The settings that a call with ``sampler`` uses."""
        own = getattr(getattr(self.stage, "settings", None), "sampler", config.Sampler())
        if isinstance(sampler, str):
            return own.model_copy(update={"solver": sampler})
        return sampler or own

    def template(self, conditions: Conditions | Check, cases: Cases = None) -> xr.Dataset:
        """The ensemble without its members: dims (*case dims, *grid), coordinates and attributes, no data in memory."""
        check = conditions if isinstance(conditions, Check) else self.check(conditions, cases)
        blank = self.stage.blank(self._leading(check), filled=False)
        return blank.assign_coords(self._training_cases(check)).assign_attrs(self.attributes())

    def _leading(self, check: Check) -> dict[str, xr.DataArray]:
        """Case coordinates of the ensemble, with the attributes and calendar of the conditions."""
        leading = {}
        for dim in _dims(check):
            values = list({encode_label(case.values[dim]): case.values[dim] for case in check.cases}.values())
            like = next((data[dim] for data in check.conditions.values() if dim in data.coords), None)
            leading[dim] = xr.DataArray(np.array(values), dims=dim, attrs={} if like is None else axes.attributes(like))
            leading[dim].encoding = {} if like is None else {k: like.encoding[k] for k in _KEPT if k in like.encoding}
        return leading

    def _training_cases(self, check: Check) -> dict[str, xr.DataArray]:
        """Whether each label along the split dim was trained on, or watched in training to choose the weights."""
        dims = _dims(check)
        if not dims:
            return {}
        dim = self.card.get("split_dim")
        dim = dim if dim in dims else dims[0]
        seen = {str(label) for split in ("training", "validation") for label in self.card.get(f"{split}_labels", [])}
        labels = dict.fromkeys(str(encode_label(case.values[dim])) for case in check.cases)
        flags = np.array([label in seen for label in labels])
        words = {"long_name": "case was used in training or validation"}
        return {"training_case": xr.DataArray(flags, dims=dim, attrs=words)}

    def attributes(self, **settings: Any) -> dict[str, Any]:
        """Global attributes of an ensemble: CF, provenance, and how independent its members are."""
        plain = {
            name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in settings.items()
        }
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            "Conventions": "CF-1.11",
            "title": self.card.get("title") or f"Ensemble of {', '.join(self.stage.codec.names)}",
            "source": f"sciffusion {sciffusion.__version__}, recipe {self.card.get('recipe', 'unknown')}",
            "history": f"{now} sampled by sciffusion",
            "license": self.card.get("licence", ""),
            "time_coherence": "none: noise is independent between cases, members are not trajectories",
            "sciffusion_model": self.identity()["model"],
            "sciffusion_grid": json.dumps(self.stage.codec.grid.to_json()),
            "sciffusion_settings": json.dumps(plain, sort_keys=True),
        }


def load(folder: str | Path) -> Emulator:
    """Load an emulator from a model or run folder; see `Emulator.load`."""
    return Emulator.load(folder)


_KEPT = ("units", "calendar", "dtype")  # encoding of a case coordinate that an ensemble takes over


def _dims(check: Check) -> tuple[str, ...]:
    """Case dims of the cases to be sampled."""
    return check.cases[0].dims if check.cases else ()


def member_numbers(members: int | Sequence[int]) -> list[int]:
    """How many members, or which, as their numbers. Raises SciffusionError for none, a negative or a repeated one."""
    numbers = list(range(members)) if isinstance(members, int) else [int(member) for member in members]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise SciffusionError(f"members {members!r}", "give a positive count, or different numbers from 0")
    return numbers


def _member_coordinate(numbers: Sequence[int]) -> xr.DataArray:
    attributes = {"standard_name": "realization", "units": "1", "long_name": "ensemble member"}
    return xr.DataArray(np.asarray(numbers, np.int32), dims="member", attrs=attributes)


def _index(whole: xr.Dataset, part: xr.Dataset, dim: str) -> list[int]:
    """Positions of the labels of ``part`` in ``whole``."""
    places = {encode_label(value): index for index, value in enumerate(whole[dim].values)}
    return [places[encode_label(value)] for value in part[dim].values]


def _left_over(
    labels: Mapping[str, Any], given: Collection[xr.Dataset], ready: Collection[xr.Dataset]
) -> dict[str, Any]:
    """Labels along dims that no data had when they were given, and that have this name in the terms of the model."""
    left = {dim: label for dim, label in labels.items() if not any(dim in data.dims for data in given)}
    for dim in left:
        if ready and not any(dim in data.dims for data in ready):
            known = sorted({str(name) for data in ready for name in data.dims})
            raise SciffusionError(f"cases along {dim!r}, which is no dim", f"the dims are {', '.join(known)}")
    return left


def _selected(data: xr.Dataset, cases: Mapping[str, Any]) -> xr.Dataset:
    """The cases asked for; dims that a condition does not have do not concern it."""
    mine = {dim: label for dim, label in cases.items() if dim in data.dims}
    # cases without labels are known by their place in the whole, which a selection must not renumber
    data = data.assign_coords({dim: np.arange(data.sizes[dim]) for dim in mine if dim not in data.coords})
    try:
        chosen = data.sel({dim: label if isinstance(label, (slice, list)) else [label] for dim, label in mine.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise SciffusionError(
            f"no such case: {error}", f"the data have {', '.join(map(str, mine))} of other values"
        ) from None
    for dim in mine:
        if chosen.sizes[dim] == 0:
            raise SciffusionError(
                f"no case in {dim} = {mine[dim]}", f"the data run from {data[dim].values[0]} to {data[dim].values[-1]}"
            )
    return chosen
