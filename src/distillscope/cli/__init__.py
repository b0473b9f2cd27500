"""Commands: parse, call, print. What they do lives in the library; a file here holds commands of one kind."""

from __future__ import annotations

import sys

from distillscope.cli.root import app, say_last
from distillscope.errors import UserError
from distillscope.files.writing import said_of

# isort: off
# Commands register themselves as they are imported; this is the order in which --help lists them.
from distillscope.cli import studies  # noqa: F401
from distillscope.cli import reports  # noqa: F401
from distillscope.cli import ship  # noqa: F401
from distillscope.cli import audits  # noqa: F401
from distillscope.cli import parts  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: a UserError, or what the system refuses, is one line and exit code 2; all else is a bug and shows as one."""
    try:
        app()
    except UserError as error:
        say_last(str(error))
        sys.exit(2)
    except OSError as error:
        said = said_of(error)
        if said is None:
            raise
        say_last(str(said))
        sys.exit(2)
    except MemoryError:
        say_last(str(UserError("memory", "enough for this", "none left",
                               "Use a part of the data, a smaller batch, or fewer trials at once.")))
        sys.exit(2)
    except KeyboardInterrupt as error:  # before its command had begun
        from distillscope.processes.interrupts import exit_code

        say_last("interrupted")
        sys.exit(exit_code(error))
