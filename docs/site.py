"""Hooks of MkDocs: pages of the site that are not in docs/, and links that hold both in the repository and on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
HOME = {"README.md": "index.md"}
PROJECT = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
BRACKET = re.compile(r"(?<![`\\])<(?=[a-z])")
"""What Typer leaves as it is, and Markdown would take for HTML."""
EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*)", re.MULTILINE)
PUBLIC = """# Python

Everything here stands in the module itself: `import distillscope`, `distillscope.audit(...)`.

"""


class Examples(griffe.Extension):
    """Examples of docstrings are code, as doctest sees them: Markdown would take ``>>>`` for quotations."""

    def on_instance(self, *, obj: Any, **more: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", obj.docstring.value)


def on_config(config: Any) -> Any:
    """Results are listed by themselves, the newest first."""
    for part in config.nav:
        if "Results" in part:
            part["Results"] = [f"results/{page.name}" for page in sorted((ROOT / "results").glob("*.md"), reverse=True)]
    return config


def on_files(files: Files, config: Any) -> Files:
    """README, results with their pictures, and the two references."""
    pictures = [p for kind in ("png", "svg") for p in (ROOT / "results").rglob(f"*.{kind}")]
    for path in [ROOT / "README.md", *(ROOT / name for name in PROJECT), *(ROOT / "results").glob("*.md"), *pictures]:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, HOME.get(name, name), abs_src_path=str(path)))
    files.append(File.generated(config, "reference.md", content=_reference()))
    files.append(File.generated(config, "commands.md", content=_commands()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between files of the repository become links between pages, or into the repository."""
    source = page.file.src_uri
    own = next((name for name, uri in HOME.items() if uri == source), source)
    there = own if (ROOT / own).is_file() else f"docs/{own}"

    def moved(match: re.Match) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(there), target))
        uri = HOME.get(place, place.removeprefix("docs/"))
        file = files.get_file_from_path(uri)
        if file is None or file.inclusion.is_excluded():
            kind = "tree" if (ROOT / place).is_dir() else "blob"
            link = f"{config.repo_url}/{kind}/main/{place}"
        else:
            link = posixpath.relpath(uri, posixpath.dirname(source) or ".")
        return f"{match[1]}{link}{'#' if anchor else ''}{anchor}{match[3]}"

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The search has a name, and no page asks GitHub how many stars the repository has: pages load nothing from elsewhere."""
    search = 'data-md-component="search" role="dialog"'
    return output.replace(search, f'{search} aria-label="Search"').replace(' data-md-component="source"', "")


def _reference() -> str:
    """A heading for each public name, which mkdocstrings fills from its docstring."""
    import distillscope

    names = sorted(distillscope._PUBLIC, key=str.lower)
    parts = [f"::: distillscope.{distillscope._PUBLIC[name]}.{name}\n    options: {{heading: distillscope.{name}}}\n"
             for name in names]
    return PUBLIC + "\n".join(parts)


def _commands() -> str:
    """The help of every command, as Typer writes it for documents."""
    import typer
    from typer.cli import get_docs_for_click

    from distillscope.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="distillscope")
    return BRACKET.sub(r"\\<", get_docs_for_click(obj=command, ctx=context, name="distillscope", title="Commands"))
