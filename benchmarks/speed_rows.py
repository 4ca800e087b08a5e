"""The rows of the speed table: which there are, the most telling first. See speed.py."""

from collections.abc import Iterator
from dataclasses import dataclass

PEERS = ("physicsnemo-songunet", "diffusers-unet2d")


@dataclass(frozen=True)
class Row:
    """One measurement; ``batch`` 0 stands for the largest power of two that fits, or that covers LARGEST_CELLS."""

    task: str
    network: str
    side: int
    batch: int
    mode: str

    @property
    def name(self) -> str:
        return f"{self.task}/{self.network}/{self.side}/b{self.batch or 'max'}/{self.mode}"

    @property
    def compiled(self) -> tuple | None:
        """What rows of the same compiled code have in common."""
        if self.task == "train":
            return None if self.mode == "lightning" else (self.mode, self.network, self.side, self.batch)
        what = "sample" if self.task == "sample" else "call"
        code = (what, self.network, self.side, self.batch, *(["fp8"] if self.in_fp8 else []))
        return code if "compiled" in self.mode else None

    @property
    def in_fp8(self) -> bool:
        return self.mode.endswith("fp8")

    @property
    def solo(self) -> bool:
        """Whether it asks for all of the device's memory, so that nothing else may hold any."""
        return self.side >= 4096


def rows(toy: bool, train: bool) -> Iterator[Row]:
    """All rows, the most telling first."""
    yield from _toy(train) if toy else (*_call_rows(), *(_train_rows() if train else ()), *_grid_rows(), *_more_rows())


def _toy(train: bool) -> Iterator[Row]:
    yield from (Row("call", network, 16, 2, "bf16") for network in ("unet-toy", "unet-toy-classic", "dit-toy"))
    yield Row("call", "unet-toy", 16, 0, "eager")
    yield Row("call", "dit-toy", 16, 2, "fp8")
    yield Row("sample", "unet-toy", 16, 2, "loop")
    yield from (Row("grid", "unet-toy", 32, 1, mode) for mode in ("bf16", "tiled"))
    yield from (Row("train", "unet-toy", 16, 2, mode) for mode in ("bare", "lightning") if train)
    yield from (Row("train", "unet-toy", 64, 2, "sciffusion") for _ in range(train))


def _call_rows() -> Iterator[Row]:
    """Calls and samples at 256^2: what is compared first."""
    yield from (Row("call", n, 256, 16, "compiled") for n in ("unet-50", PEERS[0], "dit-100", PEERS[1], "unet-100"))
    yield from (Row("sample", "unet-50", 256, 1, mode) for mode in ("loop-compiled", "compiled", "loop", "bf16"))
    yield from (Row("sample", n, 256, 16, "compiled") for n in ("unet-50", PEERS[0], "unet-10", "dit-50", PEERS[1]))
    small = ("dit-wide", "unet-10", "dit-50", "unet-classic-50", "dit-10")
    yield from (Row("call", n, 256, 16, "compiled") for n in small)
    yield from (Row("call", n, 256, 16, "compiled-fp8") for n in ("dit-100", "dit-wide", "dit-50", "dit-10"))
    yield from (Row("sample", n, 256, 16, f"compiled{mode}") for n in ("dit-100", "dit-wide") for mode in ("", "-fp8"))
    yield from (Row("call", "dit-100", 256, batch, mode) for batch, mode in ((1, "compiled-fp8"), (16, "fp8")))
    yield from (Row("call", n, 256, 16, "compiled-search") for n in ("unet-50", *PEERS))
    yield from (Row("call", n, 256, 16, "bf16") for n in ("unet-50", "dit-100", *PEERS))
    yield Row("call", "unet-50", 256, 16, "eager")


def _train_rows() -> Iterator[Row]:
    modes = ("sciffusion", "bare", "lightning")
    yield from (Row("train", "unet-recipe", 64, 16, mode) for mode in modes)
    yield from (Row("train", n, 256, 16, mode) for n in ("unet-50", "dit-100") for mode in ("bare", "lightning"))
    yield from (Row("train", "unet-recipe", 64, 128, mode) for mode in modes)
    yield Row("train", "unet-recipe", 64, 16, "bare-graphs")


def _grid_rows() -> Iterator[Row]:
    """Memory and time as the grid grows; the largest ones are not expected to fit."""
    whole, tiled = (128, 256, 512, 1024, 2048, 4096, 6144, 8192), (1024, 2048, 8192, 16384)
    yield from (Row("grid", "unet-50", side, 1, "bf16") for side in whole)
    yield from (Row("grid", "unet-50", side, 1, "tiled") for side in tiled)


def _more_rows() -> Iterator[Row]:
    """Other batches and grids: first of the network that is recommended and of the peers, then of all."""
    networks = ("unet-50", *PEERS, "dit-100"), ("unet-100", "unet-10", "dit-50", "dit-10")
    for names in networks:
        for batch, side in ((1, 256), (0, 256), (16, 128), (16, 512), (1, 128), (1, 512), (0, 128)):
            yield from (Row("call", n, side, batch, "compiled") for n in names)
