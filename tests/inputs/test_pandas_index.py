"""Row labels of pandas name the items, whether a column holds them or only the metadata of a file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import refused
from distillscope.inputs.embeddings import align, read_embeddings, with_ids
from distillscope.inputs.labels import match_labels
from distillscope.inputs.pairing import columns_of_ids, distinct_texts

N = 40
Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3
ORDER = np.random.default_rng(1).permutation(N)
WRITERS = {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet, "feather": pd.DataFrame.to_feather}


def table(start=0, **more) -> pd.DataFrame:
    return pd.DataFrame({f"e{i}": Z[:, i] for i in range(4)}, index=pd.RangeIndex(start, start + N)).assign(**more)


def labels(start=1000) -> pd.DataFrame:
    return pd.DataFrame({"label": Y}, index=pd.RangeIndex(start, start + N))


def written(frame, path):
    WRITERS[path.suffix[1:]](frame, path)
    return path


def ids_of(side):
    return [texts for column in columns_of_ids(side) if (texts := distinct_texts(column)) is not None]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("start", [0, 1000])
def test_labels_are_matched_by_the_index(tmp_path, kind, start):
    ids = ids_of(read_embeddings(written(table(start), tmp_path / f"t.{kind}")))
    for frame in (labels(start), labels(start).iloc[ORDER]):
        found, reading = match_labels(written(frame, tmp_path / f"l.{kind}"), N, ids)
        assert list(found) == list(Y), reading.said()
    assert reading.ids in ("index", "__index_level_0__")
    found, _ = match_labels(written(labels(start)["label"].iloc[ORDER].to_frame(), tmp_path / f"l.{kind}"), N, ids)
    assert list(found) == list(Y)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("start", [0, 1000])
def test_a_shuffled_index_of_labels_beside_rows_without_ids_is_asked_about(tmp_path, kind, start):
    file = written(labels(start).iloc[ORDER], tmp_path / f"l.{kind}")
    with refused(expected="embeddings with ids", advice="@none"):
        match_labels(file, N)
    found, reading = match_labels(f"{file}@none", N)
    assert list(found) == list(Y[ORDER])
    assert kind == "parquet" or "Not used: an unnamed one (int64)" in reading.said()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_rising_index_is_the_order_of_the_rows_where_nothing_matches_it(tmp_path, kind):
    """What a part of a longer table has."""
    file = written(labels(1000), tmp_path / f"l.{kind}")
    for ids in ([], [np.array([f"n{i}" for i in range(N)], object)]):
        found, reading = match_labels(file, N, ids)
        assert list(found) == list(Y) and "rising" in reading.said() and "in row order" in reading.said()
    assert "rising" not in match_labels(written(labels(0), tmp_path / f"l.{kind}"), N)[1].said()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_numbered_anew_beside_shuffled_numbers_are_asked_about(tmp_path, kind):
    ids = ids_of(read_embeddings(written(table().iloc[ORDER], tmp_path / f"t.{kind}")))
    file = written(labels(0), tmp_path / f"l.{kind}")
    with refused(got="either", advice=("@index", "@none")):
        match_labels(file, N, ids)
    assert list(match_labels(f"{file}@index", N, ids)[0]) == list(Y[ORDER])
    assert list(match_labels(f"{file}@none", N, ids)[0]) == list(Y)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_that_count_from_one_are_not_shifted_against_rows_that_count_from_zero(tmp_path, kind):
    ids = ids_of(read_embeddings(written(table(), tmp_path / f"t.{kind}")))
    own = pd.DataFrame({"id": np.arange(1, N + 1), "label": Y})
    own.to_csv(tmp_path / "l.csv", index=False)
    found, reading = match_labels(tmp_path / "l.csv", N, ids)
    assert list(found) == list(Y) and "'id' counts from 1" in reading.said()
    own.iloc[ORDER].to_csv(tmp_path / "l.csv", index=False)
    with refused(got="in 'id'", advice=("l.csv@id", "l.csv@none")):
        match_labels(tmp_path / "l.csv", N, ids)
    assert match_labels(f"{tmp_path / 'l.csv'}@id", N, ids)[1].unlabelled == 1
    assert list(match_labels(f"{tmp_path / 'l.csv'}@none", N, ids)[0]) == list(Y[ORDER])


def test_names_of_items_beside_rows_that_are_only_numbered_are_refused(tmp_path):
    ids = ids_of(read_embeddings(written(table(), tmp_path / "t.parquet")))
    pd.DataFrame({"file": [f"n{i}" for i in range(N)], "label": Y}).to_csv(tmp_path / "l.csv", index=False)
    with refused(got="none in 'file'", advice="@none"):
        match_labels(tmp_path / "l.csv", N, ids)


# -- ranges, which are in the metadata alone ---------------------------------------------------------------------------------


def paired(tmp_path, first, second, kind="parquet"):
    sides = (("t", first), ("s", second))
    return align(*(read_embeddings(written(frame, tmp_path / f"{name}.{kind}")) for name, frame in sides))


def test_rows_that_pandas_numbered_in_a_parquet_file_are_paired_by_their_numbers(tmp_path):
    _, second, pairing = paired(tmp_path, table(), table().iloc[ORDER])
    assert pairing.by == "id" and np.allclose(second.rows[:], Z)
    first, second, pairing = paired(tmp_path, table(), table().iloc[::-1])
    assert "ids from 'index'" in first.reading.said() and pairing.by == "id" and np.allclose(second.rows[:], Z)
    first, second, pairing = paired(tmp_path, table(), table().iloc[10:30])
    assert pairing.by == "id" and pairing.dropped == (20, 0) and np.allclose(first.rows[:], second.rows[:])
    several = table().set_index([pd.RangeIndex(7, 7 + N), pd.Index(["a"] * N)])
    assert paired(tmp_path, several, several.iloc[ORDER])[2].by == "id"


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_plain_numbers_of_rows_on_both_sides_say_nothing(tmp_path, kind):
    first, _, pairing = paired(tmp_path, table(), table(), kind)
    assert pairing.by == "order" and first.reading.said() == f"t.{kind}: 40 rows of 4 from columns e0..e3; no ids; no labels."
    written(table(label=Y), tmp_path / f"l.{kind}")
    assert read_embeddings(tmp_path / f"l.{kind}").reading.unused == ()
    pd.DataFrame({"serial": [f"n{i}" for i in range(N)]}).to_parquet(tmp_path / "ids.parquet")
    assert with_ids(first, tmp_path / "ids.parquet", "--ids").ids[1] == "n1"


def test_numbers_that_pandas_noted_of_other_rows_are_passed_over(tmp_path):
    held = pa.Table.from_pandas(table(5))
    pq.write_table(held.slice(0, 30), tmp_path / "t.parquet")
    assert read_embeddings(tmp_path / "t.parquet").ids is None
    for note in (b"{", b"[]", b'{"index_columns": [{"kind": "range", "start": "x"}]}', b'{"index_columns": [3, null]}'):
        pq.write_table(held.replace_schema_metadata({b"pandas": note}), tmp_path / "t.parquet")
        assert read_embeddings(tmp_path / "t.parquet").ids is None
    columns = json.dumps({"index_columns": [{"kind": "range", "name": "e0", "start": 5, "stop": 5 + N, "step": 1}]})
    pq.write_table(held.replace_schema_metadata({b"pandas": columns.encode()}), tmp_path / "t.parquet")
    assert read_embeddings(tmp_path / "t.parquet").rows.shape == (N, 4)


def test_parts_of_one_table_keep_its_numbers(tmp_path):
    for name, frame in (("t", table()), ("s", table().iloc[ORDER])):
        (tmp_path / name).mkdir()
        for k in range(2):
            frame.iloc[20 * k : 20 * k + 20].to_parquet(tmp_path / name / f"part-{k}.parquet")
    _, second, pairing = align(read_embeddings(tmp_path / "t"), read_embeddings(tmp_path / "s"))
    assert pairing.by == "id" and np.allclose(second.rows[:], Z)
    for k in range(2):  # each numbered anew, one of them by a program that notes no index
        part = table().iloc[20 * k : 20 * k + 20].reset_index(drop=True)
        pq.write_table(pa.Table.from_pandas(part, preserve_index=None if k else False), tmp_path / "t" / f"part-{k}.parquet")
    again = read_embeddings(tmp_path / "t")
    assert again.ids is None and again.reading.unused == () and len(again) == N
