"""Where a page's numbers come from, and the command that makes them again."""

from __future__ import annotations

from typing import Any

import yaml

from distillscope.report.figures.noise import noise_conditions
from distillscope.report.sections import escape, listed
from distillscope.results.run import Run
from distillscope.results.summary import Summary


def provenance_html(run: Run, summary: Summary) -> str:
    """Where the numbers come from, and the command that makes them again."""
    known = run.provenance
    versions = known.get("versions") if isinstance(known.get("versions"), dict) else {}
    facts = {"distillscope": known.get("distillscope"), "commit": known.get("commit"), "device": known.get("device"),
             "threads": known.get("threads"), "hardware": known.get("hardware"), "started": known.get("started"),
             "duration": duration(known.get("seconds")), "seeds": ", ".join(map(str, run.study.get("seeds") or [])),
             "versions": ", ".join(f"{k} {v}" for k, v in versions.items())}
    levels = noise_conditions(run, summary)
    noise = f"<h3>Noise, in both units</h3>{listed([_noise_line(s) for s in levels])}" if levels else ""
    config = escape(yaml.safe_dump(run.study, sort_keys=False, allow_unicode=True))
    missing = "" if known else "<p>This run has no provenance.json, so its versions and its command are not known.</p>"
    return (f"{missing}{facts_html(facts)}{command_html(known.get('command'))}{noise}<details><summary>The whole configuration (study.yaml)</summary>"
            f"<pre>{config}</pre></details>")


def facts_html(facts: dict[str, Any]) -> str:
    """Names and what they are; what is not known is not shown."""
    return f'<dl>{"".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v not in (None, ""))}</dl>'


def command_html(command: str | None) -> str:
    """The exact command, to be copied."""
    if not command:
        return ""
    return (f'<h3>Repeat it</h3><pre id="command">{escape(command)}</pre>'
            '<button class="tool" type="button" data-copy="command">copy</button>')


def _noise_line(sigma) -> str:
    how = ", ".join(p for p in (f"added to {sigma.where}" if sigma.where else "",
                                {True: "clipped", False: "not clipped"}.get(sigma.clipped, "")) if p)
    return f"{sigma.text}{'; ' + how if how else ''}"


def duration(seconds: Any) -> str:
    """
    >>> duration(61.5), duration(None)
    ('1 min 2 s', '')
    """
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
