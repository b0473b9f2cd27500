"""A page whose parts are HTML already, until each has its templates."""

from __future__ import annotations

from markupsafe import Markup

from distillscope.report.render import render_page


def assembled(*, title: str, data: dict, scripts: tuple[str, ...] = ("page.js",), styles: tuple[str, ...] = ("page.css",),
              **parts: str) -> str:
    """A page of ``parts`` that were escaped by hand."""
    return render_page("strings.html", title=title, data=data, scripts=scripts, styles=styles,
                       **{name: Markup(part) for name, part in parts.items()})
