"""Where errors end: a message and an exit code for the expected, a traceback and 70 for bugs."""

import traceback

from pipeline.errors import EXIT_CODES
from pipeline.output import Output


def report(exc: Exception, *, color: bool = True) -> int:
    """Prints the error and returns the shell's exit code."""
    out = Output(color=color)
    code = next((EXIT_CODES[kind] for kind in type(exc).__mro__ if kind in EXIT_CODES), None)
    if code is None:
        traceback.print_exception(exc)
        out.error(
            f"this is a bug in Enginery: {type(exc).__name__}: {exc}; please report it with the lines above"
        )
        return 70
    out.error(str(exc), getattr(exc, "__notes__", ()))
    return code
