"""Commands that say what there is: list, doctor, cache."""

from __future__ import annotations

from typing import Annotated

import typer

from distillscope.cli.root import app, cache_app, completed, print_table
from distillscope.errors import UserError, unknown_name
from distillscope.registry import KINDS


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", autocompletion=completed(),
                                         help=f"presets, recipes, {', '.join(KINDS)}")],
) -> None:
    """List the parts of a kind: what each is and what can be set.

    Example: `distillscope list objectives`
    """
    if kind == "presets":
        from distillscope.config.load import preset_description, preset_names

        print_table("presets", ["name", "what"], [(n, preset_description(n)) for n in preset_names()])
        return
    if kind == "recipes":
        from distillscope.config.recipe import DEFAULT_RECIPE, read_recipe, recipe_names

        print_table("recipes", ["name", "what"], [(f"{n} (default)" if n == DEFAULT_RECIPE else n, read_recipe(n).description)
                                                  for n in recipe_names()])
        return
    if kind not in KINDS:
        raise unknown_name("list", "kind", kind, ["presets", "recipes", *KINDS])
    registry = KINDS[kind]
    rows = [(n, registry.summary(n), ", ".join(
        k if p.default is p.empty else f"{k}={p.default}" for k, p in registry.settings(n).items())) for n in registry]
    shown = 3 if any(settings for *_, settings in rows) else 2  # measures have none, and long names
    print_table(kind, ["name", "what", "settings"][:shown], [row[:shown] for row in rows])


@app.command()
def doctor() -> None:
    """Show what this machine has (devices, threads, versions, weights, data, extras) and how to get what is missing.

    Example: `distillscope doctor`
    """
    from distillscope.cli.doctor import examine, examine_extras

    print_table("doctor", ["what", "found", "what to do"], examine())
    print_table("extras: pip install 'distillscope[NAME]'", ["name", "what it adds", "found", "missing"], examine_extras())


@cache_app.command("list")
def cache_list() -> None:
    """List the cache's entries: teacher, view or noise, rows, size. Example: `distillscope cache list`"""
    from distillscope.teachers.inventory import list_entries

    rows = []
    for entry in list_entries():
        perturbation = entry["perturbation"] or {}
        what = " ".join(f"{k}={v}" for k, v in perturbation.items() if k in ("kind", "name", "sigma", "draw", "seed", "epoch"))
        seen = f"damaged: {entry['damaged']}" if entry["damaged"] else what or "clean"
        rows.append((entry["name"], seen, f"{entry['rows']:,}", f"{entry['bytes'] / 2**20:.1f} MiB"))
    print_table("cache", ["entry", "images as seen", "rows", "size"], rows)


@cache_app.command("prune")
def cache_prune(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ENTRY...]")] = None,
    all_: Annotated[bool, typer.Option("--all", help="remove every entry")] = False,
) -> None:
    """Remove entries, by the names that `cache list` prints, or all. Example: `distillscope cache prune --all`"""
    from distillscope.teachers.inventory import prune_entries

    if not names and not all_:
        raise UserError("cache prune", "names of entries, or --all", "neither", "See `distillscope cache list`.")
    count, size = prune_entries(names or None)
    print(f"removed {count} entries, {size / 2**20:.1f} MiB")


@cache_app.command("path")
def cache_path() -> None:
    """Print the cache's folder. Example: `distillscope cache path`"""
    from distillscope.files.folders import cache_root

    print(cache_root())
