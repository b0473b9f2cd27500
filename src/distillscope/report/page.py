"""What a page is made of: its figures and sections, functions that say at registration where they stand; and templates -> HTML,
one file that opens offline and asks nothing of any network.

Nothing else in the package makes HTML. Every value is escaped (autoescape), and a name that a template asks for and nobody gave
raises (StrictUndefined).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup

from distillscope.report.figures.figure import Figure
from distillscope.report.sentences.numbers import NBSP, count, number, percent
from distillscope.visible import joined


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

        ``question`` stands before the title ("Why?") and joins neighbours in the list of contents. The template is the macro
        ``name`` of sections.html in the page's folder of report/templates, or else a file ``name``.html there or in
        ``folder``; or ``template``, a macro of _sections.html (figures, findings, table, provenance).
        """
        return self._add(name, order, {"title": title, "question": question, "template": template, "folder": folder})

    def shown(self, pool: object) -> list[ShownSection]:
        """The sections that have something to show, made from the attributes of ``pool``."""
        found: list[ShownSection] = []
        for entry in self._ordered():
            values = made(entry.make, pool)
            if values is not None:
                title, question, shared, folder = (entry.facts[k] for k in ("title", "question", "template", "folder"))
                if folder is not None:
                    html = render(f"{entry.name}.html", folder, **values)
                else:
                    html = section_html("" if shared else self.page, shared or entry.name, **values)
                found.append(ShownSection(entry.name, title, question, html))
        return found


def section_html(page: str, name: str, **values: Any) -> Markup:
    """A section of ``page`` with ``values`` put in; without a page, one that pages share."""
    macros = environment().get_template(f"{page}/sections.html" if page else "_sections.html").module
    macro = getattr(macros, name.replace("-", "_"), None)
    return Markup(macro(**values)) if macro is not None else render(f"{page}/{name}.html", **values)


STATIC = Path(__file__).parent / "static"


def place(value: float, full: float) -> str:
    """Where a value stands on a bar of length ``full``, in per cent, never beyond its ends.

    >>> place(0.25, 1.0), place(2.0, 1.0)
    ('25.00', '100.00')
    """
    return f"{_share(value, full):.2f}"


def width(low: float, high: float, full: float) -> str:
    """The length of a bar's part from ``low`` to ``high``, in per cent of ``full``.

    >>> width(0.25, 2.0, 1.0)
    '75.00'
    """
    return f"{_share(high, full) - _share(low, full):.2f}"


def _share(value: float, full: float) -> float:
    return max(0.0, min(100.0, 100 * value / full))


def uncapitalised(text: str) -> str:
    """
    >>> uncapitalised("Not run.")
    'not run.'
    """
    return text[:1].lower() + text[1:]


@functools.cache
def environment(folder: Path | None = None) -> Environment:
    """The templates of report/templates; those of ``folder``, where one is given, are looked for first."""
    own = PackageLoader("distillscope.report", "templates")
    made = Environment(loader=own if folder is None else ChoiceLoader([FileSystemLoader(folder), own]), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False)
    made.filters |= {"number": number, "percent": percent, "count": count, "joined": joined, "place": place, "width": width,
                     "uncapitalised": uncapitalised}
    made.globals["nbsp"] = NBSP
    return made


def render(template: str, folder: Path | None = None, **values: Any) -> Markup:
    """The template of that name with ``values`` put in, as HTML that another template may hold."""
    return Markup(environment(folder).get_template(template).render(**values))


def static(name: str) -> str:
    """A file of report/static, with the line ends that the browser will hash."""
    return (STATIC / name).read_text(encoding="utf-8").replace("\r\n", "\n").strip()


def script_hash(source: str) -> str:
    """The Content-Security-Policy source that lets exactly this inline script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode('utf-8')).digest()).decode()}'"


def content_policy(scripts: list[str]) -> str:
    """Nothing may load: no host, no eval, no script but ours by hash; images only from within the page."""
    return (f"default-src 'none'; script-src {' '.join(map(script_hash, scripts))}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'")


def json_for_script(value: object) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element, and no name from data can begin one."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render_page(page: str, *, title: str, data: dict[str, Any], **values: Any) -> str:
    """A whole page: ``page``/page.html (which extends base.html) with ``values``; ``data`` is what page.js reads."""
    from plotly.offline import get_plotlyjs

    plotly, script = get_plotlyjs().replace("\r\n", "\n"), static("page.js")
    return str(render(f"{page}/page.html", page=page, title=title, policy=Markup(content_policy([plotly, script])),
                      style=Markup(static("page.css")), data=Markup(json_for_script(data)), plotly=Markup(plotly),
                      script=Markup(script), **values)) + "\n"


STUDY_FIGURES = Figures("study", "distillscope.report.figures")
STUDY = Sections("study", "distillscope.report.context")
AUDIT_FIGURES = Figures("audit", "distillscope.report.figures")
AUDIT = Sections("audit", "distillscope.report.context")
COMPARISON = Sections("compare", "distillscope.report.context")
