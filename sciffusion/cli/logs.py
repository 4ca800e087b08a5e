"""Where log lines of a command go: to the terminal, and to a file in the run folder for jobs without one."""

import logging
import shlex
import sys
from pathlib import Path

__all__ = ["log_to", "print_next"]

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def log_to(file: str | Path | None = None) -> None:
    """Send the package's log lines to standard error, and to the end of ``file`` when one is given."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file))
    logger = logging.getLogger("sciffusion")
    logger.setLevel(logging.INFO)
    logger.handlers.clear()
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
        logger.addHandler(handler)


def print_next(done: str, run: str) -> None:
    """Say what was done with a run folder and what comes next, once for all processes that train together."""
    from sciffusion.training.chain import leads

    if leads():
        print(f"{done}; next: sciffusion generate {shlex.quote(run)} --members 16 --output ens.zarr")
