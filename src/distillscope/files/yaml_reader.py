"""The one reader of YAML: plain values that mean what they look like; anything else is one line with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distillscope.errors import UserError
from distillscope.files.json_reader import read_bytes

DEPTH, NODES, BYTES, DIGITS = 30, 20_000, 2**20, 40
"""How deep values may be nested, how many there may be with every alias written out, how long the text and a number may be."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Refused(yaml.MarkedYAMLError):
    """YAML that is well formed and that a study may not hold: ``problem`` is what was found, ``context`` what to do."""

    def __init__(self, todo: str, found: str, mark: Any = None) -> None:
        super().__init__(todo, None, found, mark)


class _Loader(yaml.SafeLoader):
    """Safe YAML without dates (text), and without numbers that are not what they look like."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()}

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = node.value.lstrip("+-")
        if len(node.value) > DIGITS:
            raise Refused("Write a shorter one, or put it into quotes.", f"a number of {len(node.value)} characters",
                          node.start_mark)
        if ":" in text or re.fullmatch(r"0[0-9_]+", text):  # base 60, base 8
            raise Refused("Put it into quotes, or write the number out.",
                          f"{node.value}, which YAML reads as another number", node.start_mark)
        try:
            return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        except (ValueError, OverflowError):
            raise Refused("Put it into quotes, or write the number out.", f"{node.value}, which is no number",
                          node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is None:
                raise Refused("Write keys as plain words.", "a list or a mapping as a key", key.start_mark)
            if name in seen:
                raise Refused("Take one of the two out.", f"the key '{key.value}' a second time", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def read_yaml(path: Path | str) -> Any:
    """The plain value in a YAML file; `UserError` if it is unreadable, not UTF-8, not YAML or more than a study may hold."""
    content = read_bytes(Path(path), "Check the path.")
    if content.startswith(UTF16):
        raise UserError(str(path), "text in UTF-8", "UTF-16", "Save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"the byte {content[error.start]:#04x}"
        raise UserError(f"{path} line {line}", "text in UTF-8", found, "Save it as UTF-8.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """``text`` as plain values.

    Refused, in one line with its line and column: tags (``!!python``, ``!!bool x``, any), a key twice, more than twenty
    thousand values with every alias written out, values nested more than thirty deep, and numbers that YAML reads otherwise
    than they look (``010`` is 8, ``1:30`` is 90). Dates are text.

    >>> parse_yaml("seeds: [1, 2]", "a.yaml"), parse_yaml("on: 2024-13-45", "--set")
    ({'seeds': [1, 2]}, {True: '2024-13-45'})
    >>> parse_yaml("a: !!bool x", "a.yaml")
    Traceback (most recent call last):
    distillscope.errors.UserError: a.yaml line 1, column 4: expected plain YAML, got the tag !!bool.
        Leave the tag out; quotes make text of anything.
    """
    try:
        return parse_plain(text)
    except Refused as error:
        raise UserError(_place(where, error), "plain YAML", str(error.problem), str(error.context)) from None
    except yaml.MarkedYAMLError as error:
        raise UserError(_place(where, error), "YAML", (error.problem or "something else")[:200], "Fix that line.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(where, "YAML", " ".join(str(error).split())[:200] or type(error).__name__, "Fix it.") from None


def parse_plain(text: str) -> Any:
    """As `parse_yaml`; raises ``yaml.YAMLError``, of which `Refused` is what is YAML and is not read."""
    if len(text) > BYTES:
        raise Refused("A study is a few pages.", f"{len(text):,} characters")
    _check_brackets(text)
    _check_events(text)
    return _unshared(yaml.load(text, Loader=_Loader))


def _unshared(value: Any) -> Any:
    """A copy in which no two places are one object, as aliases make them: a change of the one must not change the other."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _check_brackets(text: str) -> None:
    """PyYAML's time grows with the square of open brackets: they are counted first, those in quotes and comments too."""
    depth = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth = depth + 1 if found[0] in "[{" else max(0, depth - 1)
        if depth > 10 * DEPTH:
            line = text.count("\n", 0, found.start())
            column = found.start() - text.rfind("\n", 0, found.start()) - 1
            mark = yaml.Mark("", found.start(), line, column, None, 0)
            raise Refused("Shorten it.", f"{depth} open brackets", mark)


def _check_events(text: str) -> None:
    """Walk the text before anything is built of it: tags, depth, and how much it is with its aliases written out."""
    known: dict[str, tuple[int, int]] = {}  # anchor -> values and depth of what it stands for
    opened: list[_Open] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        deepest = 0
        if isinstance(event, yaml.CollectionEndEvent):
            done = opened.pop()
            deepest = done.deepest + 1
            if done.anchor:
                known[done.anchor] = total - done.before, deepest
        elif isinstance(event, yaml.AliasEvent):
            if any(o.anchor == event.anchor for o in opened):
                raise Refused("Write it out.", f"*{event.anchor} inside itself", event.start_mark)
            size, deepest = known.get(str(event.anchor), (1, 0))
            total += size
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            total += 1
            _check_node(event)
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(_Open(event.anchor, total - 1))
            elif event.anchor:
                known[event.anchor] = 1, 0
        if opened:
            opened[-1].deepest = max(opened[-1].deepest, deepest)
        if len(opened) + deepest > DEPTH:
            raise Refused("Shorten it.", f"values nested more than {DEPTH} deep", event.start_mark)
        if total > NODES:
            raise Refused("Write it shorter, without aliases.", f"more than {NODES:,} values", event.start_mark)


@dataclass
class _Open:
    """A list or mapping that has begun: how many values there were before it, and how deep what it holds is so far."""

    anchor: str | None
    before: int
    deepest: int = 0


def _check_node(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.tag is not None:
        raise Refused("Leave the tag out; quotes make text of anything.",
                      f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')}", event.start_mark)
    if isinstance(event, yaml.ScalarEvent) and (found := re.search("[\0\ud800-\udfff]", event.value)):
        raise Refused("Take it out.", f"the character {ascii(found[0])}, which no file may hold", event.start_mark)


def _place(where: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return where if mark is None else f"{where} line {mark.line + 1}, column {mark.column + 1}"
