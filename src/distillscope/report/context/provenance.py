"""What the provenance of every page shows."""

from __future__ import annotations


def duration(seconds: object) -> str:
    """
    >>> duration(61.5), duration(None)
    ('1 min 2 s', '')
    """
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
