"""JSON of the program's own: what is damaged or foreign is one line that names the file."""

from __future__ import annotations

import pytest

from builders.refusals import refused
from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json, read_json


@pytest.mark.parametrize("content, match", [
    (b"", "an empty file"), (b"[]", "a valid dictionary, got \\[\\]"), (b"5", "dictionary"), (b"null", "dictionary"),
    (b"x", "expected JSON"),
    (b'{"a": NaN}', "NaN, which JSON does not have"), (b'{"a": -Infinity}', "Infinity"), (b"[" * 100_000, "nested too deep"),
    (b'{"a":' * 100_000, "nested too deep"), (b"\xff\xfe{", "UTF-8"), (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON"),
    (b'{"a": 1', "expected JSON")])
def test_what_is_no_mapping(tmp_path, content, match):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=match) as error:
        read_json(tmp_path / "a.json", dict, "Do this.")
    assert str(error.value).endswith("Do this.") and "a.json" in str(error.value)


def test_a_key_given_twice_is_refused():
    with refused(got="the key 'a' twice"):
        parse_json('{"b": {"a": 1, "c": 2, "a": 3}}', "a.json", dict)


def test_a_folder_a_gap_and_a_byte_order_mark(tmp_path):
    with refused(got="a folder"):
        read_json(tmp_path)
    with refused(where="none.json", got="no file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "a.json") == {}


def test_a_closed_file(tmp_path, monkeypatch):
    from pathlib import Path

    def closed(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)  # root may read everything
    with refused(got="closed to this user"):
        read_json(tmp_path / "a.json")


def test_the_place_of_what_is_wrong_is_said():
    with refused(where="a.json 1", got="'x'"):
        parse_json('[1, "x"]', "a.json", list[int])


def test_no_control_character_reaches_the_terminal():
    assert "\x1b" not in str(UserError("a\x1b[31m", "b\x9b", "c\u202e"))
