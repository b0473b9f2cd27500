"""Templates -> HTML, and a page as one file that opens offline and asks nothing of any network.

Nothing else in the package makes HTML. Every value is escaped (autoescape), and a name that a template asks for and nobody gave
raises (StrictUndefined).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup

from distillscope.report.sentences.numbers import NBSP, count, number, percent
from distillscope.visible import joined

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
