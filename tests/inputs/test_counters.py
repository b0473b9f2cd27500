"""Numbers that only count the rows: beside those of a part, of a part that was numbered anew, and beside others' ids."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from builders import refused
from distillscope.audits.run import audit_inputs
from distillscope.inputs.embeddings import align, read_embeddings

N = 40
Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3
ORDER = np.random.default_rng(1).permutation(N)
WRITERS = {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet, "feather": pd.DataFrame.to_feather,
           "json": pd.DataFrame.to_json}
PARTS = {"mask": np.flatnonzero(Y != 1), "slice": np.arange(5, 25), "every second": np.arange(0, N, 2), "sample": ORDER[:20]}


def table(**more) -> pd.DataFrame:
    return pd.DataFrame({f"e{i}": Z[:, i] for i in range(4)}).assign(**more)


def written(frame, path, **settings):
    WRITERS[path.suffix[1:]](frame, path, **settings)
    return path


def paired(first, second, ids=("", "")):
    return align(*(read_embeddings(f"{file}{at}") for file, at in zip((first, second), ids, strict=True)))


def same_rows(first, second) -> bool:
    return np.allclose(first.rows[:], second.rows[:], atol=1e-6)


# -- both sides --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", list(PARTS))
@pytest.mark.parametrize("kinds", [("parquet", "parquet"), ("csv", "csv"), ("json", "json"), ("csv", "parquet"),
                                   ("parquet", "csv"), ("feather", "feather")])
def test_a_part_beside_the_same_part_numbered_anew_is_in_row_order(tmp_path, kinds, part):
    rows = table().iloc[PARTS[part]]
    if kinds[0] == "feather" and part in ("mask", "sample"):
        rows = rows.reset_index()  # feather keeps ranges alone
    first = written(rows, tmp_path / f"t.{kinds[0]}")
    second = written(table().iloc[PARTS[part]].reset_index(drop=True), tmp_path / f"s.{kinds[1]}")
    for files in ((first, second), (second, first)):
        one, other, pairing = paired(*files)
        assert pairing.by == "order" and len(one) == len(PARTS[part]) and same_rows(one, other)
        assert "rows are taken to be in one order" in pairing.said() and "@index" in pairing.said()


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_a_whole_table_beside_a_part_or_another_order_of_it_is_paired_by_number(tmp_path, kind):
    whole = written(table(), tmp_path / f"t.{kind}")
    for rows in (*PARTS.values(), ORDER):
        first, second, pairing = paired(whole, written(table().iloc[rows], tmp_path / f"s.{kind}"))
        assert pairing.by == "id" and pairing.matched == len(rows) and same_rows(first, second)
        assert "numbers of the rows" in pairing.said() and "@none" in pairing.said()


def test_what_is_said_of_numbers_made_anew_can_be_overruled(tmp_path):
    first, second = written(table().iloc[:30], tmp_path / "t.parquet"), written(table().iloc[10:], tmp_path / "s.parquet")
    assert paired(first, second)[2].by == "order"
    one, other, pairing = paired(first, second, ("@index", "@index"))
    assert pairing.dropped == (10, 10) and same_rows(one, other)
    listed = written(table().iloc[ORDER], tmp_path / "l.parquet")
    one, other, pairing = paired(written(table(), tmp_path / "w.parquet"), listed, ("@index", "@index"))
    assert pairing.by == "id" and same_rows(one, other)
    assert paired(tmp_path / "w.parquet", listed, ("", "@none"))[2].by == "order"
    with refused(expected="30 rows", advice="@index"):
        paired(first, written(table().iloc[15:], tmp_path / "s.parquet"))


def test_row_names_of_r_are_numbers_of_rows_too(tmp_path):
    from_one = table().set_axis(range(1, N + 1))
    whole = written(from_one, tmp_path / "t.csv")
    first, second, pairing = paired(whole, written(from_one.iloc[ORDER], tmp_path / "s.csv"))
    assert pairing.by == "id" and same_rows(first, second)
    part = written(table().iloc[PARTS["mask"]], tmp_path / "p.parquet")
    anew = written(table().iloc[PARTS["mask"]].set_axis(range(1, len(PARTS["mask"]) + 1)), tmp_path / "a.csv")
    first, second, pairing = paired(part, anew)
    assert pairing.by == "order" and same_rows(first, second)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ids_that_count_from_one_beside_rows_that_count_from_zero_are_one_order(tmp_path, kind):
    first = written(table(id=np.arange(1, N + 1)), tmp_path / f"t.{kind}", index=False)
    second = written(table(), tmp_path / f"s.{kind}")
    one, other, pairing = paired(first, second)
    assert pairing.by == "order" and same_rows(one, other)
    assert "'id' of the teacher counts from 1, the student's rows are numbered from 0" in pairing.said()
    written(table(id=np.arange(N)).iloc[ORDER], first, index=False)
    with refused(got="another order", advice=("@id", "@none keeps row order")):
        paired(first, second)
    assert paired(first, second, ("@none", ""))[2].by == "order"


def typed(advice: str):
    """Both sides as an error says to name them."""
    sides = re.search(r"--teacher(?:-ids)? (\S+) --student(?:-ids)? ([^\s;]+?)[.;]?( |$)", advice)
    return align(*(read_embeddings(path) for path in sides.groups()[:2]))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("names", [("id", "id"), ("id", "image_id")])
@pytest.mark.parametrize("rows", [np.arange(N), np.arange(30), ORDER])
def test_ids_that_count_from_zero_beside_ids_that_count_from_one_are_asked_about(tmp_path, kind, names, rows):
    zero = written(table(**{names[0]: np.arange(N)}), tmp_path / f"t.{kind}", index=False)
    one = written(table(**{names[1]: np.arange(1, N + 1)}).iloc[rows], tmp_path / f"s.{kind}", index=False)
    for files in ((zero, one), (one, zero)):
        with refused(got=("counts from 0", "counts from 1"), advice=(f"t.{kind}@{names[0]}", f"s.{kind}@{names[1]}")) as caught:
            paired(*files)
        assert typed(caught.value.todo)[2].matched == len(rows) - (len(rows) == N)
        assert ("takes the rows in order" in caught.value.todo) == (len(rows) == N)
    if len(rows) == N:
        assert paired(zero, one, ("@none", ""))[2].by == "order"
    padded = table(file=[f"{i:03d}" for i in range(1, N + 1)]).iloc[rows]
    with refused(got="'file' of the student counts from 1"):
        paired(zero, written(padded, tmp_path / f"p.{kind}", index=False))


def test_file_names_pair_rows_whose_counters_begin_elsewhere(tmp_path):
    names = [f"n{i}.png" for i in range(N)]
    first = written(table(id=np.arange(N), file=names), tmp_path / "t.csv", index=False)
    second = written(table(id=np.arange(1, N + 1), file=names).iloc[ORDER], tmp_path / "s.csv", index=False)
    one, other, pairing = paired(first, second)
    assert pairing.columns == ("file", "file") and pairing.matched == N and same_rows(one, other)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ids_from_one_beside_row_labels_of_a_part_are_asked_about(tmp_path, kind):
    whole = written(table(id=np.arange(1, N + 1)), tmp_path / f"t.{kind}", index=False)
    part = written(table().iloc[PARTS["mask"]], tmp_path / f"s.{kind}")
    with refused(got=("'id' of the teacher counts from 1", "row labels of pandas"), advice="@id") as caught:
        paired(whole, part)
    assert typed(caught.value.todo)[2].matched == len(PARTS["mask"]) - 1
    r = table().set_axis(range(1, N + 1))
    assert paired(written(r, tmp_path / "r.csv"), written(r.iloc[5:25], tmp_path / "p.csv"))[2].matched == 20


def test_the_output_names_the_ids_by_which_rows_were_aligned(tmp_path):
    files = written(table(), tmp_path / "t.parquet"), written(table().iloc[ORDER], tmp_path / "s.parquet")
    found = audit_inputs(*map(str, files), groups=["alignment"], intervals=False)
    assert found.inputs["teacher"]["ids"] == "index" and "ids from 'index'" in found.inputs["teacher"]["said"]
    assert found.inputs["pairing"]["by"] == "id"


# -- labels ------------------------------------------------------------------------------------------------------------------


def audited(teacher, student, labels) -> dict:
    """How the labels were read."""
    return audit_inputs(str(teacher), str(student), str(labels), groups=["alignment"], intervals=False).inputs["labels"]


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
@pytest.mark.parametrize("part", ["slice", "every second", "sample"])
def test_labels_that_count_a_whole_table_from_one_beside_a_part_that_pandas_counts_from_zero_are_asked_about(tmp_path, kind,
                                                                                                            part):
    teacher = written(table().iloc[PARTS[part]], tmp_path / f"t.{kind}")
    student = written(table().iloc[PARTS[part]], tmp_path / f"s.{kind}")
    own = pd.DataFrame({"id": np.arange(1, N + 1), "label": Y})
    for labels, column in ((own, "id"), (own.iloc[ORDER], "id"), (own[["label"]].set_axis(range(1, N + 1)), "index")):
        labels.to_csv(tmp_path / "l.csv", index=column == "index")
        with refused(got=("from 1 to 40", "count from 0"), advice=f"l.csv@{column}"):
            audited(teacher, student, tmp_path / "l.csv")
        assert "by '" in audited(teacher, student, f"{tmp_path / 'l.csv'}@{column}")["said"]
    table(label=Y)[["label"]].to_csv(tmp_path / "l.csv")
    assert "by 'index'" in audited(teacher, student, tmp_path / "l.csv")["said"]
    anew = written(table().iloc[PARTS[part]].reset_index(drop=True), tmp_path / f"a.{kind}")
    assert "by 'index'" in audited(teacher, anew, tmp_path / "l.csv")["said"]
    own.to_csv(tmp_path / "l.csv", index=False)
    with refused(got="from 1 to 40"):
        audited(anew, teacher, tmp_path / "l.csv")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_labels_that_count_from_one_beside_fewer_rows_from_zero_are_asked_about(tmp_path, kind):
    labels = pd.DataFrame({"id": np.arange(1, N + 1), "label": Y})
    sides = [written(table().iloc[:30], tmp_path / f"{name}.{kind}") for name in "ts"]
    for order in (np.arange(N), ORDER):
        labels.iloc[order].to_csv(tmp_path / "l.csv", index=False)
        with refused(got=("'id' from 1 to 40", "counted from 0"), advice="l.csv@id"):
            audited(*sides, tmp_path / "l.csv")
        assert "by 'id'" in audited(*sides, f"{tmp_path / 'l.csv'}@id")["said"]
    sides = [written(table(id=np.arange(1, N + 1)).iloc[:30], tmp_path / f"{name}.{kind}", index=False) for name in "ts"]
    assert "by 'id'" in audited(*sides, tmp_path / "l.csv")["said"]
    labels.assign(id=labels["id"] - 1).to_csv(tmp_path / "l.csv", index=False)
    with refused(got=("'id' from 0 to 39", "counted from 1")):
        audited(*sides, tmp_path / "l.csv")


def test_labels_from_one_are_matched_where_the_embeddings_have_that_column(tmp_path):
    own = table(id=np.arange(1, N + 1)).iloc[PARTS["slice"]]
    pd.DataFrame({"id": np.arange(1, N + 1), "label": Y}).iloc[ORDER].to_csv(tmp_path / "l.csv", index=False)
    for kind in ("parquet", "csv"):
        found = audited(written(own, tmp_path / f"t.{kind}"), written(own, tmp_path / f"s.{kind}"), tmp_path / "l.csv")
        assert "by 'id'" in found["said"] and found["unlabelled"] == 0
