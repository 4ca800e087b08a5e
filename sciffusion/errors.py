"""The one error that a user can mend: what is wrong, and what to do about it; and other errors in a line."""

__all__ = ["NotAffine", "SciffusionError", "reason"]


class SciffusionError(Exception):
    """Bad input, named, with its mend. The command line prints it without a traceback and exits with status 2.

    ``what`` names the thing that is wrong (file, variable, line); ``mend`` says what to change.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what
        self.mend = mend
        super().__init__(f"{what}\n  -> {mend}" if mend else what)


class NotAffine(SciffusionError):
    """A linear constraint in physical units is not linear under this variable's transform."""


def reason(error: Exception) -> str:
    """What went wrong, for a line of a log: the kind of error and its first line, with the next after a colon."""
    first, *rest = str(error).splitlines() or [""]
    line = f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first
    return f"{type(error).__name__}: {line[:200]}"
