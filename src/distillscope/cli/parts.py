"""Commands that say what there is: list, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from distillscope.cli.root import app, print_table
from distillscope.errors import unknown_name
from distillscope.registry import KINDS


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"presets, {', '.join(KINDS)}")],
) -> None:
    """List the parts of a kind, with what each is and what can be set.

    Example: `distillscope list objectives`
    """
    if kind == "presets":
        from distillscope.config.load import preset_description, preset_names

        print_table("presets", ["name", "what"], [(n, preset_description(n)) for n in preset_names()])
        return
    if kind not in KINDS:
        raise unknown_name("list", "kind", kind, ["presets", *KINDS])
    registry = KINDS[kind]
    rows = [(n, registry.summary(n), ", ".join(
        k if p.default is p.empty else f"{k}={p.default}" for k, p in registry.settings(n).items())) for n in registry]
    print_table(kind, ["name", "what", "settings"], rows)


@app.command()
def doctor() -> None:
    """What this machine has: devices, threads, versions, weights and data within reach, and what to do about the rest.

    Example: `distillscope doctor`
    """
    from distillscope.cli.doctor import examine

    print_table("doctor", ["what", "found", "what to do"], examine())
