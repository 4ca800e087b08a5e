"""The sections of an experiment about its stages: networks, noise levels, samplers, and the stages themselves.

As in ``sciffusion.settings`` every field's description is its reference.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from sciffusion.settings import Settings

__all__ = [
    "Augmentation",
    "AutoencoderSettings",
    "AutoencoderStage",
    "DenoiserStage",
    "DiTSettings",
    "FlowMapStage",
    "MLPSettings",
    "Network",
    "NoiseSettings",
    "RegressionStage",
    "Sampler",
    "Stage",
    "StageTrain",
    "UNetSettings",
]


class UNetSettings(Settings):
    """A UNet with boundary-aware convolutions; cost and size follow channels x multipliers and blocks."""

    kind: Literal["unet"] = "unet"
    style: Literal["magnitude-preserving", "classic"] = Field(
        default="magnitude-preserving",
        description="EDM2's layers, which need no statistics of the domain, or group normalisation",
    )
    channels: int = Field(default=64, ge=4, description="width of the outermost level")
    multipliers: list[int] = Field(default=[1, 2, 4], min_length=1, description="width of each level over channels")
    blocks: int = Field(default=2, ge=1, description="residual blocks per level and side")
    attention: list[int] = Field(default=[], description="levels with attention: 0 outermost, -1 innermost")
    patch: int = Field(default=1, ge=1, description="side of the patches folded into channels by the stem")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="share of activations dropped in training")
    embedding: int = Field(default=128, ge=8, description="width of the noise-level and vector embedding")


class DiTSettings(Settings):
    """A diffusion transformer over patches of cells; cost and size follow width, depth and patch."""

    kind: Literal["dit"] = "dit"
    width: int = Field(default=384, ge=16, description="features per patch; a multiple of heads times 2")
    depth: int = Field(default=12, ge=1, description="transformer blocks")
    heads: int = Field(default=6, ge=1, description="attention heads")
    patch: int = Field(default=4, ge=1, description="side of the patches of cells")
    window: int | None = Field(
        default=None,
        ge=2,
        description="side of the attention windows in patches, shifted every other block; null: global",
    )
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden over outer width of the perceptrons")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="share of perceptron activations dropped in training")
    embedding: int = Field(default=256, ge=8, description="width of the noise-level and vector embedding")


class MLPSettings(Settings):
    """A perceptron for vectors, such as the embeddings of a prior."""

    kind: Literal["mlp"] = "mlp"
    width: int = Field(default=256, ge=8, description="features of the residual stream")
    depth: int = Field(default=6, ge=1, description="residual blocks")
    cells: int = Field(default=4, ge=1, description="parts per axis over which conditions on the grid are averaged")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="share of activations dropped in training")
    embedding: int = Field(default=128, ge=8, description="width of the noise-level and vector embedding")


class AutoencoderSettings(Settings):
    """A convolutional autoencoder; its latent has 1 / 2^(levels - 1) of the cells along each axis."""

    kind: Literal["autoencoder"] = "autoencoder"
    channels: int = Field(default=64, ge=4, description="width of the outermost level")
    multipliers: list[int] = Field(default=[1, 2, 4], min_length=1, description="width of each level over channels")
    blocks: int = Field(default=2, ge=1, description="residual blocks per level and side")
    latent: int = Field(default=4, ge=1, description="channels of the latent, per channel of the field")
    shortcuts: bool = Field(default=False, description="carry cells into channels beside every change of level")
    vector: int | None = Field(default=None, ge=1, description="features of one code vector in place of a latent field")
    cells: int = Field(default=4, ge=1, description="parts per axis that a code vector is made of")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped in training")


def _kind(default: str) -> Callable[[Any], str]:
    """The kind of a section's settings, or ``default`` where it does not say."""

    def kind(value: Any) -> str:
        return str(value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default))

    return kind


Network = Annotated[
    Annotated[UNetSettings, Tag("unet")] | Annotated[DiTSettings, Tag("dit")] | Annotated[MLPSettings, Tag("mlp")],
    Discriminator(_kind("unet")),
]


Path = Literal["ddpm-linear", "ddpm-cosine", "vp", "sub-vp", "ve", "rectified", "trigonometric"]


class NoiseSettings(Settings):
    """Noise levels, in units of the normalised target's sd; ``fit`` measures sigma_max on the training data."""

    path: Path | None = Field(
        default=None,
        description="a paper's path, whose times training and sampling may be uniform in; null: none",
    )
    sigma_min: float = Field(default=0.002, gt=0, description="smallest noise level; discrete paths have their own")
    sigma_max: float | Literal["fit"] = Field(
        default="fit", description="largest noise level; fit: 5 times the rms of the training data's leading mode"
    )
    distribution: Literal["lognormal", "loguniform", "time"] = Field(
        default="lognormal", description="of training levels; time: uniform in the path's time"
    )
    p_mean: float | None = Field(default=None, description="mean of log sigma in training; empty: fitted to the data")
    p_std: float | None = Field(default=None, gt=0, description="sd of log sigma in training; empty: fitted")
    weight: Literal["edm", "noise", "matched", "min-snr"] = Field(
        default="edm",
        description="of the loss at each level: unit loss at first; of the noise (DDPM, score); of the network's own"
        " target (flow matching); min(1/sigma^2, 5)",
    )
    dof: int | None = Field(
        default=None,
        ge=3,
        description="degrees of freedom of Student-t noise, whose heavy tails suit extremes (5, say); needs a"
        " deterministic solver; null: Gaussian noise",
    )


class Sampler(Settings):
    """Solver, network calls and noise grid at sampling time; a None takes the emulator's own value."""

    solver: str = Field(default="adams", description="name of the solver: adams, dpmpp-2m, dpmpp-2m-sde, heun, ...")
    steps: int = Field(default=20, ge=1, description="noise levels of the sampling grid")
    grid: Literal["karras", "time"] = Field(
        default="karras", description="karras: uniform in sigma^(1/rho); time: uniform in the time of the noise path"
    )
    rho: float = Field(default=9.0, gt=0, description="exponent of the grid; larger puts more levels at small noise")
    sigma_min: float | None = Field(default=None, gt=0, description="smallest level; null: as trained")
    sigma_max: float | None = Field(default=None, gt=0, description="largest level; null: as trained")
    churn: float = Field(default=0.0, ge=0, description="S_churn of the stochastic Heun solver")
    s_noise: float = Field(default=1.0, gt=0, description="inflation of the noise that a stochastic solver adds")
    guidance: float = Field(
        default=1.0, ge=0, description="weight of classifier-free guidance; 1: none, above 1 costs spread"
    )
    guidance_interval: tuple[float, float] | None = Field(
        default=None, description="noise levels [low, high] that guidance is limited to"
    )
    threshold: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="dynamic thresholding: answers whose quantile of this order passes that of every training case are"
        " scaled back to it; null: none; needs a model that was trained with one",
    )
    tile: int | None = Field(
        default=None,
        ge=8,
        description="cells per side of overlapping tiles, whose answers are fused at every call; null: the network sees"
        " the whole grid",
    )
    overlap: int | None = Field(
        default=None, ge=0, description="cells that neighbouring tiles share; null: a quarter of a tile"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.overlap is not None and self.overlap >= (self.tile or 0):
            raise ValueError(f"an overlap of {self.overlap} cells needs a tile that is larger: set tile too")
        return self


class Augmentation(Settings):
    """Noise on the outputs of earlier stages that are inputs, with its level as an input too (cascades)."""

    largest: float = Field(default=0.0, ge=0, description="levels in training are uniform up to this; 0: no noise")
    sampling: float = Field(default=0.0, ge=0, description="level when members are drawn")


class StageTrain(Settings):
    """What one stage does otherwise than ``train`` says; a null takes the value from there."""

    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    batch_size: int | None = Field(default=None, ge=1, description="over all devices")
    learning_rate: float | None = Field(default=None, gt=0, description="peak learning rate of Adam")
    warmup: int | None = Field(default=None, ge=0, description="steps of linear warm-up")


class _Trained(Settings):
    """What all stages with a network share."""

    inputs: list[str] | None = Field(
        default=None,
        description="conditions used, and outputs of earlier stages as NAME.output; '*' stands for all conditions,"
        " null too",
    )
    baseline: str | None = Field(
        default=None,
        description="what is subtracted: a coarse condition's interpolation (first stage), or NAME.output of a stage",
    )
    shrinkage: float | Literal["fit"] = Field(
        default="fit", description="of the mean residual per cell: 0 none, 1 full, fit by leaving one case out"
    )
    train: StageTrain = Field(default=StageTrain(), description="what this stage does otherwise in training")


class RegressionStage(_Trained):
    """A deterministic network of the target's conditional mean, in two halves that never saw each other's cases.

    Later stages are trained on the error that each half makes on the cases of the other; members use their mean.
    """

    name: str = Field(default="regression", description="name of the stage within the emulator")
    kind: Literal["regression"] = "regression"
    network: Network = Field(default=UNetSettings(), description="the network")


class AutoencoderStage(_Trained):
    """A code for the codec's fields, in which later stages (``space: NAME``) work."""

    name: str = Field(default="autoencoder", description="name of the stage within the emulator")
    kind: Literal["autoencoder"] = "autoencoder"
    network: AutoencoderSettings = Field(default=AutoencoderSettings(), description="the network")
    inputs: list[str] | None = Field(default=[], max_length=0, description="none: fields alone are coded")
    kl: float = Field(default=1e-4, ge=0, description="weight of the code's size in the loss")
    spectrum: float = Field(default=0.05, ge=0, description="weight of the spectral distance in the loss")
    tails: float = Field(default=0.5, ge=0, description="more weight of cells beyond two sds, per sd")


class _Diffusion(_Trained):
    """What denoisers and flow maps share."""

    network: Network = Field(default=UNetSettings(), description="the network")
    parameterization: Literal["edm", "epsilon", "velocity", "flow", "x0"] = Field(
        default="edm", description="what the network predicts"
    )
    condition_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of samples trained unconditionally")
    noise: NoiseSettings = Field(default=NoiseSettings(), description="noise levels of training")
    sampler: Sampler = Field(default=Sampler(), description="how members are drawn unless told otherwise")
    constraint: str | None = Field(default=None, description="coarse condition that every member must reproduce")
    space: str | None = Field(default=None, description="autoencoder stage in whose code this stage works")
    coarsen: int = Field(default=1, ge=1, description="works on means over blocks of so many cells a side (cascades)")
    augmentation: Augmentation = Field(default=Augmentation(), description="noise on outputs of earlier stages")


class DenoiserStage(_Diffusion):
    """A conditional diffusion model of the target, as the residual to a baseline."""

    name: str = Field(default="denoiser", description="name of the stage within the emulator")
    kind: Literal["denoiser"] = "denoiser"


class FlowMapStage(_Diffusion):
    """A few-step generator: from noise to a field in ``sampler.steps`` network calls."""

    name: str = Field(default="flowmap", description="name of the stage within the emulator")
    kind: Literal["flowmap"] = "flowmap"
    sampler: Sampler = Field(default=Sampler(steps=2), description="``steps`` network calls; its solver is not used")
    objective: Literal["crps", "progressive", "ect", "sct", "scd", "meanflow"] = Field(
        default="crps",
        description="almost-fair CRPS of one-step members; progressive distillation; easy consistency tuning;"
        " continuous-time consistency on the data or on a teacher; average velocity",
    )
    teacher: str | None = Field(
        default=None, description="run or model folder whose last stage is distilled and gives the first weights"
    )
    levels: list[float] | None = Field(
        default=None, description="noise level before each call, falling; null: from sigma_max to 1.6 in equal ratios"
    )
    members: int = Field(default=2, ge=2, description="members per case in the CRPS objective")


Stage = Annotated[
    Annotated[AutoencoderStage, Tag("autoencoder")]
    | Annotated[DenoiserStage, Tag("denoiser")]
    | Annotated[FlowMapStage, Tag("flowmap")]
    | Annotated[RegressionStage, Tag("regression")],
    Discriminator(_kind("denoiser")),
]
