"""The app, the options that commands share (`--json` alike on all), and how tables are printed."""

from __future__ import annotations

import glob
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup


class Commands(TyperGroup):
    """The commands; Typer by itself ends an interrupted one without a word."""

    def invoke(self, ctx: Any) -> Any:
        from distillscope.processes.interrupts import catch_termination, exit_code

        catch_termination()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            say_last(f"interrupted{self._goes_on(ctx)}")
            raise typer.Exit(exit_code(error)) from None

    def _goes_on(self, ctx: typer.Context) -> str:
        """What is left of an interrupted command, and how to go on with it."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        if command is None or not any("--resume" in p.opts for p in command.params):
            return "; repeat the command."
        return "; what was finished is kept. Repeat the command with --resume to continue."


app = typer.Typer(
    cls=Commands,
    name="distillscope", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    help="Distil a large frozen image encoder into a small student, and see exactly what the student lost.\n\n"
    "Start with: `distillscope run quickstart`",
)


def print_version(asked: bool) -> None:
    if asked:
        from distillscope import __version__

        print(f"distillscope {__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True,
                                                  help="Print the version and exit.")] = False) -> None:
    """Options that stand before any command."""


cache_app = typer.Typer(no_args_is_help=True, help="The cache of teacher embeddings (DISTILLSCOPE_CACHE sets its folder).")
app.add_typer(cache_app, name="cache")



def completed(*kinds: str, files: str = "") -> Callable[[str], list[str]]:
    """What a shell completes a word to: names of those kinds, and files whose names end so."""
    def complete(incomplete: str) -> list[str]:
        from distillscope.config.load import names_in
        from distillscope.registry import KINDS

        names = [*KINDS, "presets", "recipes"] if not kinds else []
        for kind in kinds:
            names += names_in(kind) if kind in ("presets", "recipes") else KINDS[kind].names_in_files  # type: ignore[arg-type]
        found = [name for name in names if name.startswith(incomplete)]
        return found + (sorted(glob.glob(f"{glob.escape(incomplete)}*{files}")) if files else [])

    return complete


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
Precision = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, for teacher and students")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="override one setting; repeatable")]
Track = Annotated[str | None, typer.Option(help="also log to tensorboard, wandb or mlflow")]
Corrupt = Annotated[str, typer.Option(metavar="error|skip",
                                      help="images that cannot be decoded: stop, or skip and report them")]
Workers = Annotated[int, typer.Option(help="processes that decode images of streamed data")]


def say_last(text: str) -> None:
    """Why the command ends, in one line; of several processes of a launcher the first that knows says it."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from distillscope import group

        if not group.speaks_last():
            return
    print(f"distillscope: {text}", file=sys.stderr)


def command_line() -> str:
    return shlex.join(["distillscope", *sys.argv[1:]])


def print_table(title: str, columns: list[str], rows: list[tuple]) -> None:
    from rich.markup import escape

    from distillscope.progress import Terminal, WholeWords

    table = WholeWords(title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Terminal().print(table)


def print_results(folder: Path) -> None:
    from distillscope.progress import Terminal
    from distillscope.report.tables import terminal_table

    terminal = Terminal()
    terminal.print(terminal_table(folder, terminal.width))


PRINT = "-"


def _checked_json(to: str | None) -> str | None:
    """Refuse, before any work, a file that is no JSON: what stands there is somebody's."""
    if to not in (None, PRINT):
        from distillscope.files.folders import check_replaceable

        check_replaceable(f"--json {to}", Path(to), ("{", "["), "one of JSON")
    return to


def _checked_markdown(to: Path | None) -> Path | None:
    """Refuse, before any work, a file that does not begin as a summary does."""
    if to is not None:
        from distillscope.files.folders import check_replaceable

        check_replaceable(f"--markdown {to}", to, ("#",), "a summary")
    return to


Json = Annotated[str | None, typer.Option("--json", metavar="[FILE]", callback=_checked_json,
                                          help="print the values as JSON, and no table; --json=FILE writes them")]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", callback=_checked_markdown,
                                               help="a summary, for a pull request or a job")]


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
        return not (Path(word).is_dir() or word.startswith("hf-hub:"))


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
