"""Embeddings of the class names: row k is class k, by what the file says, or as it stands, and the reading says which."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from builders import refused
from distillscope import cli
from distillscope.inputs.class_text import read_class_text

TEXT = np.eye(4, 6, dtype=np.float32)
TURNED = np.array([2, 0, 3, 1])
NAMES = np.array(["cat", "dog", "emu", "fox"])


def read(folder, names=None, order=TURNED, **columns):
    pd.DataFrame({**columns, "embedding": TEXT[order].tolist()}).to_parquet(folder / "text.parquet")
    return read_class_text(folder / "text.parquet", names)


@pytest.mark.parametrize("columns", [{"label": TURNED}, {"id": TURNED}, {"label": NAMES[TURNED]}, {"name": NAMES[TURNED]},
                                     {"label": TURNED, "name": NAMES[TURNED]},
                                     {"label": TURNED, "coarse_label": [0, 0, 1, 1]},
                                     {"class_name": NAMES[TURNED], "id": range(4)}])
def test_numbers_and_names_of_the_classes_give_the_order(tmp_path, columns):
    rows, reading = read(tmp_path, list(NAMES), **columns)
    assert np.array_equal(rows, TEXT) and f"in the order of '{next(iter(columns))}'" in reading.said()


def test_a_shuffled_index_gives_the_order_and_further_classes_follow(tmp_path):
    pd.DataFrame({"embedding": TEXT.tolist()}).iloc[TURNED].to_parquet(tmp_path / "t.parquet")
    assert np.array_equal(read_class_text(tmp_path / "t.parquet")[0], TEXT)
    rows, _ = read(tmp_path, ["dog", "cat"], label=NAMES[TURNED])
    assert np.array_equal(rows, TEXT[[1, 0, 2, 3]])


def test_rows_as_they_stand_are_said(tmp_path):
    np.save(tmp_path / "t.npy", TEXT)
    rows, reading = read_class_text(tmp_path / "t.npy")
    assert np.array_equal(rows, TEXT) and "as they stand" in reading.said()
    for names in (None, ["a", "b", "c", "d"]):
        rows, reading = read(tmp_path, names, order=np.arange(4), label=NAMES)
        assert np.array_equal(rows, TEXT) and "'label' (first 'cat') are not compared" in reading.said()
    assert "as they stand" in read(tmp_path, order=np.arange(4), label=[1, 2, 3, 4])[1].said()


@pytest.mark.parametrize(("columns", "names"), [({"label": [3, 1, 4, 2]}, None), ({"label": [0, 1, 1, 2]}, None),
                                                ({"label": NAMES}, ["cat", "cow"]), ({"label": ["0", None, "1", "2"]}, None)])
def test_what_numbers_or_names_the_classes_in_part_is_refused(tmp_path, columns, names):
    with refused(where="text.parquet:label"):
        read(tmp_path, names, **columns)


@pytest.mark.parametrize(("column", "values"), [("class_name", NAMES[TURNED]), ("name", NAMES[TURNED]), ("fine_label", TURNED),
                                                ("prompt", NAMES[TURNED])])
def test_coarse_classes_beside_the_column_that_gives_the_order_are_passed_over_and_it_is_said(tmp_path, column, values):
    rows, reading = read(tmp_path, list(NAMES), coarse_label=[1, 0, 1, 0], **{column: values})
    assert np.array_equal(rows, TEXT) and f"in the order of '{column}'" in reading.said()
    assert "'coarse_label' does not number each class once" in reading.said()


def test_which_column_counts_is_asked_where_they_differ_and_can_be_said(tmp_path):
    file, names = tmp_path / "text.parquet", list(NAMES)
    for column, other in (("coarse_label", "name"), ("id", "name")):
        with refused(got=(f"'{column}'", f"'{other}'"), advice=(f"FILE@{column}", f"FILE@{other}")):
            read(tmp_path, names, **{column: [3, 2, 0, 1], other: NAMES[TURNED]})
        assert np.array_equal(read_class_text(f"{file}@{other}", names)[0], TEXT)
        assert np.array_equal(read_class_text(f"{file}@{column}", names)[0], TEXT[TURNED][[2, 3, 1, 0]])
        rows, reading = read_class_text(f"{file}@none", names)
        assert np.array_equal(rows, TEXT[TURNED]) and "as they stand" in reading.said()
    rows, reading = read(tmp_path, names, id=range(4), name=NAMES[TURNED])
    assert np.array_equal(rows, TEXT) and "in the order of 'name'" in reading.said()
    with refused(where="coarse_label", got="with repeats", advice=("FILE@COLUMN", "FILE@none")):
        read(tmp_path, coarse_label=[0, 0, 1, 1], class_name=NAMES)
    rows, reading = read_class_text(f"{file}@class_name")
    assert np.array_equal(rows, TEXT[TURNED]) and "'class_name' (first 'cat') are not compared" in reading.said()
    assert "as they stand" in read(tmp_path, coarse_label=[0, 0, 1, 1], **{"class": NAMES})[1].said()


def test_a_class_without_an_embedding_is_refused(tmp_path):
    pd.DataFrame({"id": [0, 1, 2, 3], "embedding": [*TEXT[:3].tolist(), None]}).to_parquet(tmp_path / "t.parquet")
    with refused(where="t.parquet", got="1 rows without one"):
        read_class_text(tmp_path / "t.parquet")


def test_an_audit_says_how_the_text_was_read_and_scores_it_so(tmp_path):
    labels = np.arange(80) % 4
    z = TEXT[labels] + 0.01 * np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    np.save(tmp_path / "z.npy", z), np.save(tmp_path / "y.npy", labels)
    pd.DataFrame({"label": TURNED, "embedding": TEXT[TURNED].tolist()}).to_parquet(tmp_path / "text.parquet")
    files = {"--teacher": "z.npy", "--student": "z.npy", "--labels": "y.npy", "--text": "text.parquet"}
    options = [str(part) for option, file in files.items() for part in (option, tmp_path / file)]
    done = CliRunner().invoke(cli.app, ["audit", *options, "--only", "zero_shot", "--json", str(tmp_path / "a.json")],
                              env={"COLUMNS": "300"})
    assert done.exit_code == 0 and "read: text text.parquet: 4 rows of 6" in done.output, done.output
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["measures"]["zero_shot.teacher.accuracy"]["value"] == 1
    assert "in the order of 'label'" in found["inputs"]["text"]["said"]
