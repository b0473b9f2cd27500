"""Whether two configurations are of one study: all is equal but the grid's axes, where what has one name is equal too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillscope.config.parts import Dataset, Teacher

AXES = ("seeds", "students", "arms", "data", "teacher")
"""Axes of the grid: a study may have more items on them, since trials do not depend on one another."""
WORDS = ("description", "published")
"""Settings that change no number."""


@dataclass(frozen=True)
class Unlike:
    """One setting, or one item of an axis (``name``), in which two configurations differ."""

    key: str
    name: Any
    first: Any
    second: Any

    @property
    def apart(self) -> tuple[Any, Any]:
        """Both values; of two mappings what differs in them alone.

        >>> Unlike("students", "S", {"label": "S", "width": 1}, {"label": "S", "width": 2}).apart
        ({'width': 1}, {'width': 2})
        """
        one, other = self.first, self.second
        if not isinstance(one, Mapping) or not isinstance(other, Mapping):
            return one, other
        keys = [k for k in {**one, **other} if one.get(k) != other.get(k)]
        return {k: one.get(k) for k in keys}, {k: other.get(k) for k in keys}


def unlike(first: Mapping[str, Any], second: Mapping[str, Any], axes: Sequence[str] = AXES) -> Iterator[Unlike]:
    """What keeps two configurations from being one study, in the order of the keys; nothing where they are one.

    >>> one = {"seeds": [1], "limit": 5, "students": [{"label": "S", "width": 1}]}
    >>> list(unlike(one, {**one, "seeds": [1, 2], "description": "more"}))
    []
    >>> [(u.key, u.name) for u in unlike(one, {**one, "limit": 6, "students": [{"label": "S", "width": 2}]})]
    [('limit', None), ('students', 'S')]
    """
    for key in sorted({*first, *second} - {*WORDS}):
        one, other = first.get(key), second.get(key)
        if key in axes and isinstance(one, list) and isinstance(other, list):
            known = {item_name(key, item): item for item in one}
            for item in other:
                before = known.get(item_name(key, item), item)
                if before != item:
                    yield Unlike(key, item_name(key, item), before, item)
        elif one != other:
            yield Unlike(key, None, one, other)


def united(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations of one study as one: the first, with what only the second has on the grid's axes behind it."""
    found = dict(first)
    for key in AXES:
        names = [item_name(key, item) for item in first.get(key) or []]
        found[key] = [*(first.get(key) or []), *(i for i in second.get(key) or [] if item_name(key, i) not in names)]
    return found


def item_name(key: str, item: Any) -> Any:
    """What an item of an axis is called, as it stands in study.yaml."""
    if key == "data":
        return Dataset.model_validate(item).title
    if key == "teacher":
        return Teacher.model_validate(item).title
    return item.get("label", item.get("name")) if isinstance(item, dict) else item
