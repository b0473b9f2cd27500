"""YAML and JSON are read as they look, or refused in one line with the place; nothing in them hangs or runs anything."""

from __future__ import annotations

import time

import pytest

from builders import refused
from distillscope.config.load import apply_override, load_preset
from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json, read_json
from distillscope.files.yaml_reader import parse_yaml, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n"
                                                         for i in range(1, 12))

REFUSED = {
    "a: 0x_": r"line 1, column 4: expected plain YAML, got 0x_, which is no number",
    "a: 0b_": "which is no number",
    "a: 010": "got 010, which YAML reads as another number",
    "a: 1:30": "another number",
    "a: !!bool x": "the tag !!bool",
    "a: !!timestamp x": "the tag !!timestamp",
    "a: !!python/object/apply:os.system [ls]": "the tag !!python/object/apply:os.system",
    "a: ! x": "the tag !",
    "a: 1\nb: 2\na: 3": r"line 3, column 1: .*the key 'a' a second time",
    "? [1]\n: 2": "as a key",
    "a: &a [*a]": r"\*a inside itself",
    "a: *nothing": "undefined alias",
    "a: " + "9" * 5000: "a number of 5000 characters",
    "0x" + "f" * 9000: "a number of 9002 characters",
    'a: "\\ud800"': "which no file may hold",
    'a: "\\0"': "which no file may hold",
    "a: [1": "line 1, column",
    "a: =": "line 1, column 4",
    "<<: 5": "line 1, column 5",
    "--- 1\n--- 2": "another document",
    BOMB: "more than 20,000 values",
    "[" * 3000: "open brackets",
    "{a: " * 50: "more than 30 deep",
    "- " * 100_000: "more than 30 deep",
    "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100)): "more than 30 deep",
    "x" * 2_000_000: "2,000,000 characters",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:30]))
def test_what_is_refused_says_what_and_where(text):
    began = time.monotonic()
    with pytest.raises(UserError, match=REFUSED[text]):
        parse_yaml(text, "a.yaml")
    assert time.monotonic() - began < 2


def test_dates_are_text_and_aliases_are_copies():
    assert parse_yaml("a: 2024-13-45\nb: 2024-01-01", "a.yaml") == {"a": "2024-13-45", "b": "2024-01-01"}
    value = parse_yaml("a: &x {b: [1]}\nc: *x\nd: {<<: *x, e: 2}", "a.yaml")
    value["a"]["b"].append(2)
    assert value == {"a": {"b": [1, 2]}, "c": {"b": [1]}, "d": {"b": [1], "e": 2}}


@pytest.mark.parametrize("content, match", [
    (b"\xff\xfea\x00", "UTF-16"), (b"name: a\nb: \xe9", r"line 2: expected text in UTF-8, got the byte 0xe9"),
    (b"name: \x00", "YAML"), (b"\xef\xbb\xbfname: [", "line 1")])
def test_a_file_that_is_no_text(tmp_path, content, match):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError, match=match):
        read_yaml(tmp_path / "a.yaml")


def test_a_byte_order_mark_is_passed_over_and_a_folder_is_said(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfname: a")
    assert read_yaml(tmp_path / "a.yaml") == {"name": "a"}
    with refused(got="a folder"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("override, match", [
    ("seeds.²=1", "index or name, got '²'"), ("seeds." + "9" * 5000 + "=1", "index or name"),
    ("name=!!bool x", "the tag !!bool"),
    ("seeds=0x_", "which is no number"), ("seeds=[010]", "another number"), (".".join("a" * 30) + "=1", "at most 20 steps"),
    ("seeds=[0x" + "f" * 30 + "]", "less than"), ("training.learning_rate=.inf", "finite"),
    ("students.0.image_size=1000000", "4096"),
    ("data=" + "a/" * 5000, "File name too long"), ("published=[{student: S, measure: x, value: .nan}]", "finite"),
    ("teacher=resnet18", "Write timm/resnet18")])
def test_hostile_overrides(override, match):
    with pytest.raises(UserError, match=match):
        load_preset("quickstart", [override])


def test_what_is_no_yaml_is_the_text_itself():
    values: dict = {}
    apply_override(values, "name=a: b: c")
    assert values == {"name": "a: b: c"}


@pytest.mark.parametrize("width", [0, 10**8])
def test_a_network_of_absurd_size_is_refused_before_it_is_built(width):
    from distillscope.students.load import check_student

    with refused(where="student.width", expected=("1", "64")):
        check_student("paper_cnn", {"width": width}, 32, "S")


def test_a_model_that_timm_does_not_know_names_its_neighbours():
    from distillscope.students.load import check_student

    with refused(advice=("Near it", "mobilenetv4_conv_small")):
        check_student("timm", {"model": "mobilenetv4_conv_smal"}, 32, "S")


@pytest.mark.parametrize("content, match", [
    (b"", "an empty file"), (b"[]", "a mapping, got \\[\\]"), (b"5", "a mapping"), (b"null", "a mapping"),
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
