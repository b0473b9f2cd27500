"""What a page shows, in its order: figures and sections are functions that say at registration where they stand."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from distillscope.report.figures.figure import Figure
from distillscope.report.render import render


def made(function: Callable[..., Any], pool: object) -> Any:
    """Call ``function`` with what its signature names, each an attribute of ``pool``."""
    return function(**{name: getattr(pool, name) for name in inspect.signature(function).parameters})


@dataclass(frozen=True)
class _Entry:
    order: float
    name: str
    make: Callable[..., Any]
    facts: Mapping[str, Any]


class _Registered:
    """Functions by name, in ``order``; a name that is taken raises. All of ``package`` is imported at the first look."""

    def __init__(self, page: str, package: str) -> None:
        self.page, self.package = page, package
        self._entries: dict[str, _Entry] = {}
        self._loaded = False

    def _add(self, name: str, order: float, facts: Mapping[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            if name in self._entries:
                raise ValueError(f"'{name}' of the page '{self.page}' is registered twice: "
                                 f"{self._entries[name].make.__module__} and {function.__module__}")
            self._entries[name] = _Entry(order, name, function, facts)
            return function

        return add

    def __iter__(self) -> Iterator[str]:
        return (e.name for e in self._ordered())

    def _ordered(self) -> list[_Entry]:
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True
        return sorted(self._entries.values(), key=lambda e: e.order)

    def remove(self, name: str) -> None:
        """Take a part out again."""
        del self._entries[name]


class Figures(_Registered):
    """The figures of a page. Each is a function -> `Figure`, or None where the page should not even say that it is absent."""

    def register(self, name: str, *, order: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function; ``name`` is its figure's key, and what its signature names is handed over."""
        return self._add(name, order, {})

    def drawn(self, pool: object, only: Collection[str] | None = None) -> dict[str, Figure]:
        """Every figure (of ``only``) by its key, made from the attributes of ``pool``."""
        found = {e.name: made(e.make, pool) for e in self._ordered() if only is None or e.name in only}
        return {name: figure for name, figure in found.items() if figure is not None}


@dataclass(frozen=True)
class ShownSection:
    """A section of a page as its page's template takes it."""

    name: str
    title: str
    question: str
    html: Markup


class Sections(_Registered):
    """The sections of a page. Each is a function -> the values for its template, or None to leave it out."""

    def register(self, name: str, title: str, *, order: float, question: str = "", template: str = "",
                 folder: Path | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function: what its signature names is handed over.

        ``question`` stands before the title ("Why?") and joins neighbours in the list of contents. The template is
        ``name``.html in the page's folder of report/templates, or in ``folder``; or ``template``, one that sections share
        (figures.html, findings.html, table.html, provenance.html).
        """
        return self._add(name, order, {"title": title, "question": question, "template": template, "folder": folder})

    def shown(self, pool: object) -> list[ShownSection]:
        """The sections that have something to show, made from the attributes of ``pool``."""
        found: list[ShownSection] = []
        for entry in self._ordered():
            values = made(entry.make, pool)
            if values is not None:
                title, question, folder = (entry.facts[k] for k in ("title", "question", "folder"))
                own = f"{self.page}/{entry.name}.html" if folder is None else f"{entry.name}.html"
                html = render(entry.facts["template"] or own, folder, **values)
                found.append(ShownSection(entry.name, title, question, html))
        return found


STUDY_FIGURES = Figures("study", "distillscope.report.figures")
STUDY = Sections("study", "distillscope.report.context")
AUDIT_FIGURES = Figures("audit", "distillscope.report.figures")
AUDIT = Sections("audit", "distillscope.report.context")
COMPARISON = Sections("compare", "distillscope.report.context")
