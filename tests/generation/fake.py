"""A deterministic emulator with the protocol of the real one."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import xarray as xr

from sciffusion.config import Sampler
from sciffusion.fields.cases import Case, cases_of
from sciffusion.noise import NoiseKey, normal

GRID = (6, 8)


def conditions(cases=4, scenario=0.0):
    time_ = xr.date_range("2001-01-01", periods=cases, calendar="noleap", use_cftime=True)
    values = scenario + np.arange(cases * 6.0).reshape(cases, 2, 3)
    return xr.Dataset({"coarse": (("time", "y", "x"), values)}, {"time": time_})


@dataclass
class Check:
    conditions: dict
    cases: list[Case]
    messages: list[str] = field(default_factory=lambda: ["coarse: used as it is"])
    outside: dict = field(default_factory=dict)


@dataclass
class Batch:
    """What the real one calls Drawn."""

    pairs: list
    parts: list

    def wait(self):
        pass

    def arrays(self, row):
        case, member = self.pairs[row]
        part = self.parts[list(dict.fromkeys(case for case, _ in self.pairs)).index(case)]
        place = part["member"].values.tolist().index(member)  # an index of pandas 2.2 is not made for threads
        one = part.isel(member=place).squeeze()
        return {str(name): field.values for name, field in one.data_vars.items()}

    def coarse_misfit(self, row, fields):
        return {}


@dataclass
class FakeEmulator:
    """Members are noise of their key plus the case's mean; every call draws ``batch_size`` items, padded."""

    model: str = "abc"
    delay: float = 0.0
    fail_after: int | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)
    drawn: list = field(default_factory=list)
    execution: dict = field(default_factory=dict)
    calls: int = 0
    stage: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(codec=SimpleNamespace(grid=SimpleNamespace(shape=GRID)))
    )

    def identity(self):
        return {"model": self.model}

    def precision(self, name, device):
        """As of a transformer on a CPU."""
        return "float32" if name == "auto" else name

    def sampler(self, sampler=None):
        return Sampler(solver=sampler) if isinstance(sampler, str) else sampler or Sampler()

    def check(self, conditions, cases=None):
        if isinstance(cases, list):
            return Check({"coarse": conditions}, cases)
        data = conditions if cases is None else conditions.sel(cases)
        return Check({"coarse": data}, cases_of(data, ("y", "x")))

    def template(self, check):
        data = check.conditions["coarse"]
        dims = check.cases[0].dims
        columns = {dim: list({case.indices[dim]: None for case in check.cases}) for dim in dims}
        shape = (*map(len, columns.values()), *GRID)
        nothing = np.broadcast_to(np.float32(np.nan), shape)
        coords = {dim: data[dim].isel({dim: places}) for dim, places in columns.items()}
        variables = {name: ((*dims, "lat", "lon"), nothing, {"units": "m s-1"}) for name in ("u", "v")}
        template = xr.Dataset(variables, coords | {"lat": np.arange(6.0), "lon": np.arange(8.0)}, {"title": "fake"})
        return template.assign_coords(training_case=(dims[0], np.zeros(shape[0], bool))) if dims else template

    def draws(self, check, members, *, seed, sampler, batch_size, items, **execution):
        self.execution = execution
        for first in range(0, len(items), batch_size):
            batch = items[first : first + batch_size]
            if self.fail_after is not None and len(self.drawn) >= self.fail_after:
                raise self.error
            time.sleep(self.delay)
            self.calls += 1
            self.drawn += batch
            cases = dict.fromkeys(case for case, _ in batch)
            yield Batch(
                batch,
                [self._part(check, check.cases[case], [m for c, m in batch if c == case], seed) for case in cases],
            )

    def _part(self, check, case, members, seed):
        mean = float(self.select(check, case).coarse.mean())
        keys = [NoiseKey(seed, case.labels, member) for member in members]
        fields = np.stack([mean + normal(key, (2, *GRID)) for key in keys])
        ones = (1,) * len(case.dims)
        data = {name: fields[:, i].reshape(len(members), *ones, *GRID) for i, name in enumerate(("u", "v"))}
        dims = ("member", *case.dims, "lat", "lon")
        coords = {"member": members} | {dim: [value] for dim, value in case.values.items()}
        return xr.Dataset({name: (dims, values) for name, values in data.items()}, coords)

    def select(self, check, case):
        return check.conditions["coarse"].isel(dict(case.indices))


def expected(seed=0, members=range(3), cases=4):
    emulator, data = FakeEmulator(), conditions(cases)
    check = emulator.check(data)
    items = [(case, member) for case in range(cases) for member in members]
    batches = emulator.draws(check, list(members), seed=seed, sampler=None, batch_size=1, device="cpu", items=items)
    return xr.combine_by_coords([part for batch in batches for part in batch.parts], combine_attrs="drop")
