"""How much memory is free, as far as the operating system and a container's limit tell."""

import os
from pathlib import Path

__all__ = ["available_memory"]


def available_memory() -> int:
    """Free memory in bytes: what the system has, or what the control group leaves, whichever is less."""
    return min(_system(), _group(Path("/sys/fs/cgroup")))


def _system() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _group(root: Path) -> int:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int((root / limit).read_text()) - int((root / used).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return 1 << 62
