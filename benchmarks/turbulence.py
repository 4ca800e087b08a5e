"""Validation loss on 128^2 turbulence after equal samples: our networks beside PhysicsNeMo's SongUNet.

    python benchmarks/turbulence.py --networks unet-100,physicsnemo-songunet --seeds 0,1,2 --search 4
    python benchmarks/turbulence.py --networks unet-50@2e-3         # at another learning rate than RATES says
    python benchmarks/turbulence.py --table                         # with the differences from SongUNet, seed by seed

Velocity of Kolmogorov flow at 128^2 given its 8 x 8 block means: what is denoised is the residual to their
interpolation. Every row trains one network from one seed on ``--samples`` samples, all in the same order with the same
noise and levels, by EDM's loss: bf16, channels_last, compiled, fused Adam with warm-up and cosine decay, gradient norm
at most 1, average of the weights with a half-life of 5 % of the steps, no dropout. The loss is that of the average at 8
fixed levels on ``--validation`` fields of other trajectories. ``--search N`` looks for a network's learning rate with
the first seed, by one rule for all: that of RATES and its double, and on in factors of two while the loss falls; its
half and on, where the double is no better; N rates at most. The other seeds take the best. A row is a JSON file in
``--out`` and is not made again, unless it was of other fields (another kind of device simulates others); none is begun
that would not end within ``--minutes``. The simulated fields are kept in ``--work``. Speed of the same networks:
speed.py.
"""

import argparse
import json
import math
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from speed_networks import NETWORKS
from torch import Tensor
from turbulence_table import PEER, table

from sciffusion.context import Context
from sciffusion.datasets.simulators import PROBLEMS
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.ema import EMA, gamma_of_halflife
from sciffusion.diffusion.objectives import denoising_error, denoising_loss
from sciffusion.diffusion.sigmas import NoiseRange
from sciffusion.diffusion.weights import edm_weight
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.networks.cost import flops, parameters
from sciffusion.networks.resample import enlarge, pool

RATE, RATES = 1e-3, {PEER: 5e-4}  # peak learning rates that are tried first
NOISE = NoiseRange()
LEVELS = np.geomspace(0.02, 80.0, 8)
BATCH, WARMUP, HALF_LIFE = 32, 50, 0.05
TRAIN, VALIDATE = 24, 8  # trajectories
PERIODIC = ("periodic", "periodic")


@dataclass(frozen=True)
class Fields:
    """Normalised residuals and conditions, (field, channel, y, x), on the device."""

    residual: Tensor
    condition: Tensor

    def batch(self, chosen: Tensor) -> tuple[Tensor, Context]:
        return self.residual[chosen], Context(channels=self.condition[chosen])

    @cached_property
    def name(self) -> str:
        """What rows that may be compared have in common."""
        return f"{crc32(self.residual.cpu().numpy()):08x}"


def simulate(path: Path, device: torch.device, toy: bool) -> tuple[Fields, Fields]:
    """Fields to train and to validate on; made when they are missing. At toy size they are random fields of 64^2."""
    problem, (train, validate) = PROBLEMS["grf" if toy else "kolmogorov"], (8, 4) if toy else (TRAIN, VALIDATE)
    if not path.is_file():
        frames = [fine.float().cpu() for fine, _ in problem.make(problem, range(train + validate), 0, device)]
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_suffix(f".{os.getpid()}")  # another process may simulate the same
        save_file({"fine": torch.stack(frames, dim=1).contiguous()}, own)
        os.replace(own, path)
    fine = load_file(path)["fine"].to(device)  # (trajectory, frame, channel, y, x)
    ours, theirs = slice(train * fine.shape[1]), slice(train * fine.shape[1], None)
    fine = fine.flatten(0, 1)
    guess = enlarge(pool(fine, problem.factor), problem.factor, fine.shape[-2:], PERIODIC)
    residual = fine - guess
    residual, guess = residual / residual[ours].std(), guess / guess[ours].std()
    return Fields(residual[ours], guess[ours]), Fields(residual[theirs], guess[theirs])


class Drawn:
    """Noise levels drawn before, on the device: a `sigmas.Levels`."""

    def __init__(self, samples: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = [NOISE.sample(BATCH, generator) for _ in range(samples // BATCH)]
        self.levels = iter(torch.stack(drawn).to(device))

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        return next(self.levels)


def order(count: int, samples: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of positions: every field once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    epochs = math.ceil(samples / count)
    places = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)]).to(device)
    yield from places[: samples // BATCH * BATCH].split(BATCH)


def measure(name: str, rate: float, seed: int, fields: tuple[Fields, Fields], args: argparse.Namespace) -> dict:
    """Train one network and validate it."""
    training, validation = fields
    device, gpu = training.residual.device, training.residual.is_cuda
    torch.manual_seed(seed)
    channels, *grid = training.residual.shape[1:]
    network = NETWORKS[name](channels, channels, grid)
    one = [torch.zeros(1, channels, *grid), torch.zeros(1), Context(channels=torch.zeros(1, channels, *grid))]
    result = {"parameters": parameters(network), "tflop_per_field": flops(network, *one) / 1e12}
    result["fields"] = training.name
    network = network.to(device, memory_format=torch.channels_last if gpu else torch.preserve_format).train()
    if gpu:
        network.compile(dynamic=False)
    started = time.perf_counter()
    average, seconds, norms = train(Preconditioned(network), training, rate, seed, args.samples)
    result["gradient_norm"] = {"median": float(norms.median()), "largest": float(norms.max())}  # before it is cut to 1
    result |= {"training_s": time.perf_counter() - started, "samples_per_s": seconds and BATCH / seconds}
    with average.swap(), torch.compiler.set_stance("force_eager"):
        levels = validate(average.module.eval(), validation, args.validation)
    if not np.isfinite(levels).all():
        raise ArithmeticError(f"losses {levels}: no row")
    return result | {"loss": float(np.mean(levels)), "losses": dict(zip(LEVELS.round(3).tolist(), levels, strict=True))}


def train(
    denoiser: Preconditioned, fields: Fields, rate: float, seed: int, samples: int
) -> tuple[EMA, float | None, Tensor]:
    """The averaged weights, the median seconds of a step, and the norm of each step's gradient.

    Seconds are of groups of ten steps after the first two; None of fewer.
    """
    device, parameters = fields.residual.device, list(denoiser.parameters())
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99), fused=device.type == "cuda")
    average, generator = EMA(denoiser, gamma_of_halflife(HALF_LIFE)), torch.Generator(device).manual_seed(seed)
    steps, clock, norms, levels = samples // BATCH, [], [], Drawn(samples, seed, device)
    for step, chosen in enumerate(order(len(fields.residual), samples, seed, device)):
        share = min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate * share
        target, cond = fields.batch(chosen)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = denoising_loss(denoiser, target, cond, levels, generator).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
        optimizer.step()
        average.update()
        if step % 10 == 9:
            float(loss.detach())  # waits for the device
            clock.append(time.perf_counter())
    return average, float(np.median(np.diff(clock)[1:])) / 10 if len(clock) > 2 else None, torch.stack(norms)


@torch.no_grad()
def validate(denoiser: Preconditioned, fields: Fields, count: int) -> list[float]:
    """EDM's loss at each of LEVELS, on evenly spread fields with noise fixed per field."""
    device = fields.residual.device
    chosen = torch.linspace(0, len(fields.residual) - 1, count).round().long().to(device)
    losses = []
    for level in LEVELS:
        generator, errors = torch.Generator(device).manual_seed(0), []
        for part in chosen.split(BATCH):
            target, cond = fields.batch(part)
            sigma = target.new_full((len(target),), level)
            noise = torch.randn(target.shape, generator=generator, device=device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                errors.append(edm_weight(sigma) * denoising_error(denoiser, target, sigma, noise, cond))
        losses.append(float(torch.cat(errors).mean()))
    return losses


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--networks",
        default=f"unet-100,{PEER}",
        help="comma-separated names of speed_networks.py, with @rate if wanted",
    )
    add("--seeds", default="0")
    add("--search", type=int, default=1, help="learning rates to try with the first seed, at most")
    add("--samples", type=int, default=16_000)
    add("--validation", type=int, default=128, help="fields")
    add("--minutes", type=float, default=60.0, help="begin no row that would last beyond it")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "turbulence")
    add("--work", type=Path, default=Path("turbulence-work"))
    add("--toy", action="store_true", help="few random fields: does it run?")
    add("--table", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.table:
        print(table(args.out))
        return
    device, until = resolve_device(args.device), time.monotonic() + 60 * args.minutes
    fields = simulate(args.work / f"kolmogorov{'-toy' * args.toy}.safetensors", device, args.toy)
    args.out.mkdir(parents=True, exist_ok=True)
    first, *others = map(int, args.seeds.split(","))
    for wanted in args.networks.split(","):
        make = Rows(*_named(wanted), fields, args, until)
        best = make.search(first, args.search)
        for seed in others:
            make(best, seed)


def _named(wanted: str) -> tuple[str, float]:
    """The network and its learning rate."""
    name, _, rate = wanted.partition("@")
    return name, float(rate or RATES.get(name, RATE))


class Rows:
    """Makes the rows of a network that are missing, while there is time for another."""

    def __init__(
        self, name: str, rate: float, fields: tuple[Fields, Fields], args: argparse.Namespace, until: float
    ) -> None:
        self.name, self.rate, self.fields, self.args, self.until = name, rate, fields, args, until
        self.latest = 0.0  # seconds of the row before; the first one compiles

    def search(self, seed: int, most: int) -> float:
        """The best of at most ``most`` rates with one seed; what could not be made is not the best."""
        losses = {self.rate: self(self.rate, seed)}
        for factor in (2.0, 0.5):
            best = self.rate
            while best == min(losses, key=losses.__getitem__) and len(losses) < most:
                best *= factor
                losses[best] = self(best, seed)
        return min(losses, key=losses.__getitem__)

    def __call__(self, rate: float, seed: int) -> float:
        """The loss of a row; infinite where it fails or there is no time."""
        usual = rate == RATES.get(self.name, RATE)
        path = self.args.out / f"{self.name}{'' if usual else f'@{rate:g}'}-{self.args.samples}-{seed}.json"
        if path.is_file() and (found := json.loads(path.read_text())).get("fields") == self.fields[0].name:
            return float(found["loss"])
        started = time.monotonic()
        if started + self.latest > self.until:
            print(f"{path.stem}: left out, no time", flush=True)
            return math.inf
        device, row = self.fields[0].residual.device, {"network": self.name, "rate": rate, "seed": seed}
        try:
            row |= measure(self.name, rate, seed, self.fields, self.args)
        except Exception:  # a row that fails must not cost the others their device time
            print(f"{path.stem}: failed\n{traceback.format_exc(limit=-3)}", flush=True)
            return math.inf
        finally:
            torch._dynamo.reset()
            self.latest = time.monotonic() - started
        row |= {"samples": self.args.samples, "device": describe_device(device), "torch": torch.__version__}
        path.write_text(json.dumps(row | {"date": datetime.now(UTC).date().isoformat()}, indent=1))
        print(path.stem, json.dumps(row), flush=True)
        return float(row["loss"])


if __name__ == "__main__":
    main()
