"""The command line: one file per command, imported only when it is called.

Every command module has ``HELP`` and ``EXAMPLE`` (texts), ``add_arguments(parser)`` and ``run(args) -> int``; nothing
at its top level imports torch or xarray, so that ``--help`` answers at once.
"""

import argparse
import errno
import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from sciffusion import __version__
from sciffusion.errors import SciffusionError
from sciffusion.stopping import Stopped

__all__ = ["main"]

COMMANDS = (
    *("demo", "init", "recipes", "train", "distill", "generate", "forecast", "evaluate"),
    *("inspect", "convert", "windows", "problem", "submit", "doctor"),
)

# what a file system refuses -> the mend; anything else that it says is a fault of ours
_SPACE = "free some space there; what was complete is intact, and the same command goes on"
_RIGHTS = "see that you may read and write there, or choose another place"
_MENDS = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "choose an output on a disk that can be written",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 2 for a SciffusionError or what a file system refuses (without a traceback), 130 when
    interrupted, 141 when nobody reads its output to the end, 85 when stopped by a signal of the batch system: "queue me
    again".
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser(argv[0] if argv else "").parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # here, where a reader that has gone can be told from a fault
    except BrokenPipeError:
        if not _reader_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        status = 128 + signal.SIGPIPE
    except SciffusionError as error:
        if os.environ.get("SCIFFUSION_TRACEBACK"):
            raise
        print(f"sciffusion {args.command}: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        mend = _MENDS.get(error.errno or 0)
        if mend is None or os.environ.get("SCIFFUSION_TRACEBACK"):
            raise
        what = f"{error.filename2 or error.filename or 'writing'}: {error.strerror}"
        print(f"sciffusion {args.command}: {SciffusionError(what, mend)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"sciffusion {args.command}: interrupted; the same command resumes", file=sys.stderr)
        status = 130
    except Stopped as stop:
        print(f"sciffusion {args.command}: stopped on a signal; the same command goes on", file=sys.stderr)
        status = int(stop.code or 0)
    return status


def _reader_gone() -> bool:
    """Whether nobody reads what is printed any more: ``sciffusion evaluate ... | head``."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parser(called: str) -> argparse.ArgumentParser:
    """The parser of all commands, or of the ``called`` one alone: the modules of the others are not imported."""
    parser = argparse.ArgumentParser(prog="sciffusion", description="Diffusion models for physics fields.")
    parser.add_argument("--version", action="version", version=f"sciffusion {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in [called] if called in COMMANDS else COMMANDS:
        module = import_module(f"sciffusion.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
