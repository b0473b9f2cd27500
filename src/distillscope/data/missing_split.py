"""What is asked for where a data set is not as expected: errors that end in words which work when typed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from distillscope.errors import UserError


def data_option(path: Path | str, **settings: str) -> str:
    """The option that names a data set with a setting; every command that reads images takes it.

    >>> data_option("photos", label="none")
    "--data '{path: photos, label: none}'"
    """
    def as_yaml(value: Path | str) -> str:
        return str(value) if re.fullmatch(r"[\w./~][\w./~-]*", str(value)) else json.dumps(str(value))

    listed = ", ".join(f"{key}: {as_yaml(value)}" for key, value in {"path": path, **settings}.items())
    return "--data " + shlex.quote("{" + listed + "}")


class MissingSplit(UserError):
    """The split that was asked for is not there. Whoever loads it says how splits are named on its command (`name_split`)."""

    def __init__(self, where: str, expected: str, got: str, split: str, instead: Sequence[str] = (), todo: str = "") -> None:
        self.split, self.instead = split, tuple(instead)
        super().__init__(where, expected, got, todo or "Check the path and the split's name.")

    def __reduce__(self):
        return type(self), (self.where, self.expected, self.got, self.split, self.instead, self.todo)

    def name_split(self, option: str) -> UserError:
        """The same with the words to type: ``option`` is "--split" or "--set data.test_split="."""
        if not self.instead:
            return UserError(self.where, self.expected, self.got, self.todo)
        typed = [(option if option.endswith("=") else f"{option} ") + name for name in self.instead]
        what = "read that" if len(typed) == 1 else "read one"
        if self.instead == (".",):
            what = "take these folders as classes of one split"
        return UserError(self.where, self.expected, self.got, f"Add {' or '.join(typed)} to {what}.")


def near_splits(split: str, there: Sequence[str]) -> list[str]:
    """Those of ``there`` that are other names for ``split``.

    >>> near_splits("test", ["train", "val"]), near_splits("test", ["a", "b"])
    (['val'], [])
    """
    groups = ({"train", "training"}, {"test", "testing", "val", "valid", "validation", "dev", "eval", "holdout"})
    same = next((g for g in groups if split.lower() in g), {split.lower()})
    return [t for t in there if t.lower() in same]
