"""How much of the machine's memory is free, as far as the operating system and a container's limit tell."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["available_memory"]

# Of a control group, versions 2 and 1: folder, file with the limit, file with what is in use.
GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Free memory in bytes: what the system has, or what the control group leaves, whichever is less.

    Pages of files that were not used lately count as free in both, for they are given up where memory is asked for.
    """
    return max(0, min([_system(), *_groups()]))


def _system() -> int:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # not Linux: half of what is built in


def _groups() -> Iterator[int]:
    for root, limit, used in GROUPS:
        with suppress(OSError, ValueError):  # no such file, or "max", which stands for no limit
            most, taken = (int(Path(root, name).read_text()) for name in (limit, used))
            yield most - max(0, taken - _given_up(Path(root, "memory.stat")))


def _given_up(statistics: Path) -> int:
    """Bytes of a group's file pages that were not used lately; version 1 counts those of groups inside it apart."""
    with suppress(OSError, ValueError):
        found = dict(line.split() for line in statistics.read_text().splitlines())
        return int(found.get("total_inactive_file", found.get("inactive_file", 0)))
    return 0
