"""The one error that a user is meant to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from distillscope.visible import visible


class UserError(ValueError):
    """Bad input, said in one line: ``where: expected X, got Y. The next thing to do``.

    A ValueError, as libraries raise for what they are given. The command line prints it without a traceback and exits with 2;
    any other exception is a bug. Control characters of names and files are written out, so that no terminal acts on them.

    >>> str(UserError("a.yaml seeds", "a list of whole numbers", "'x'", "Write seeds: [42]."))
    "a.yaml seeds: expected a list of whole numbers, got 'x'. Write seeds: [42]."
    """

    def __init__(self, where: str, expected: str, got: str, todo: str = "") -> None:
        self.where, self.expected, self.got, self.todo = where, expected, got, todo
        where, expected, got, todo = map(_shortened, (where, expected, got, todo))
        super().__init__(visible(" ".join(f"{where}: expected {expected}, got {got}. {todo}".split())))

    def __reduce__(self):  # crosses process boundaries whole
        return type(self), (self.where, self.expected, self.got, self.todo)


def _shortened(text: str, most: int = 1000) -> str:
    """A value of megabytes is no line: its head and its length are."""
    return text if len(text) <= most else f"{text[:200]} ... ({len(text):,} letters)"


def near_names(name: str, known: Iterable[str]) -> str:
    """Up to five of many known names that are like ``name``, the likest first, as the last sentence of an error.

    >>> near_names("resnt18", ["resnet18", "resnet34", "vit_tiny"])
    'Near it: resnet18, resnet34.'
    """
    return f"Near it: {', '.join(difflib.get_close_matches(name, list(known), n=5)) or 'none'}."


def unknown_name(where: str, kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list: it guesses what was meant, and lists what is known.

    >>> str(unknown_name("objective", "objective", "cosin", ["cosine", "mse"]))
    "objective: expected a known objective, got 'cosin'. Did you mean 'cosine'? Known: cosine, mse."
    """
    known = sorted(known)
    close = sorted(difflib.get_close_matches(str(name), known, n=3))
    likest = max(close, key=lambda other: difflib.SequenceMatcher(None, other, str(name)).ratio(), default="")
    guess = f"Did you mean '{likest}'? " if likest else ""
    return UserError(where, f"a known {kind}", f"'{name}'", f"{guess}Known: {', '.join(known)}.")
