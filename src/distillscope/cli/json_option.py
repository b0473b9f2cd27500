"""``--json [FILE]``, alike on every command: alone it prints the values and no table, with a file it writes them too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

PRINT = "-"

Json = Annotated[str | None, typer.Option("--json", metavar="[FILE]",
                                          help="print the values as JSON, and no table; --json=FILE writes them")]


class WithJson(TyperCommand):
    """A command without inputs of its own beside its options: the word after ``--json`` is the file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.joined(args))

    def joined(self, args: list[str]) -> list[str]:
        """The arguments with ``--json`` and its file in one word; alone it is ``--json=-``."""
        found, rest = [], list(args)
        while rest and rest[0] != "--":
            word = rest.pop(0)
            if word == "--json":
                has_file = bool(rest) and (rest[0] == PRINT or (not rest[0].startswith("-") and self.is_file(rest[0])))
                word = f"--json={rest.pop(0) if has_file else PRINT}"
            found.append(word)
        return found + rest

    def is_file(self, word: str) -> bool:
        return True


class JsonAfterFolders(WithJson):
    """A command whose inputs are folders: a word after ``--json`` that is one is an input."""

    def is_file(self, word: str) -> bool:
        return not Path(word).is_dir()


class JsonAfterFiles(WithJson):
    """A command whose inputs may be files: only ``--json=FILE`` names one."""

    def is_file(self, word: str) -> bool:
        return False


def put_json(text: str, to: str | None) -> bool:
    """Print the JSON, or write it and say where; whether it was printed, so that nothing else may be."""
    from distillscope.files.writing import write_text
    from distillscope.progress import tell

    if to is None:
        return False
    text = text.rstrip("\n") + "\n"
    if to == PRINT:
        typer.echo(text, nl=False)
        return True
    write_text(Path(to), text)
    tell(f"values: {Path(to).resolve()}")
    return False
