"""The command `distillscope`, also ``python -m distillscope``: Ctrl-C is one line from the first import on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. An interrupt while its modules are still read ends it like any other, with exit code 130."""
    try:
        from distillscope.cli import main as command

        command()
    except KeyboardInterrupt:
        print("distillscope: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
