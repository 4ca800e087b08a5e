"""Which device runs, by name, with an error that names the mend; and its description for provenance."""

import platform

import torch

from sciffusion.errors import SciffusionError

__all__ = ["describe_device", "device_model", "resolve_device"]


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """The device called ``name`` ("cpu", "cuda", "cuda:1"), or the current GPU where there is one, else the CPU.

    Raises SciffusionError for a name that is unknown or a GPU that is not there.
    """
    if name is None or str(name) == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SciffusionError(f"no device is called {name!r}", "use cpu, cuda or cuda:<number>") from None
    if device.type not in ("cpu", "cuda"):
        raise SciffusionError(f"device {name!r} is not supported", "use cpu, cuda or cuda:<number>")
    return _gpu(device) if device.type == "cuda" else torch.device("cpu")


def device_model(device: torch.device) -> str:
    """What outputs are bitwise reproducible on: the GPU's model, or the CPU's kind and vector instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"


def describe_device(device: torch.device) -> str:
    """The device's model, and how many threads a CPU uses."""
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{device_model(device)}{threads}"


def _gpu(device: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        mend = "use --device cpu" if built else "install a torch built for CUDA, or use --device cpu"
        raise SciffusionError("no CUDA GPU can be used here", mend)
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise SciffusionError(f"{device} does not exist", f"this machine has cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)
