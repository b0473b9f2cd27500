"""Numbered columns are one embedding, and none of them is left out unsaid."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import refused
from distillscope.inputs.embeddings import read_embeddings, with_ids
from distillscope.inputs.labels import match_labels

N = 30
Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
NAMES = np.array([f"n{i:02d}" for i in range(N)])


def table(**more) -> pd.DataFrame:
    return pd.DataFrame({f"e{i}": Z[:, i] for i in range(4)}).assign(**more)


@pytest.mark.parametrize("column", ["e0", "e2", "e3"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "without a header"])
def test_a_dimension_with_a_cell_that_is_no_number_is_named_not_left_out(tmp_path, column, suffix):
    frame, file = table().astype(object), tmp_path / "t.parquet"
    frame.loc[7, column] = "#N/A"
    if suffix == "parquet":
        kinds = {c: str if c == column else float for c in frame}
        frame.astype(kinds).to_parquet(file)
    else:
        file = tmp_path / "t.csv"
        frame.to_csv(file, index=False, header=suffix == "csv")
    shown = column if suffix != "without a header" else column[1]
    with refused(where=f"{file.name}:{shown}", got="'#N/A' in row 7", advice="FILE:") as caught:
        read_embeddings(file)
    rest = np.delete(Z, int(column[1]), axis=1)
    assert np.allclose(read_embeddings(f"{file}:{caught.value.todo.partition('FILE:')[2].rstrip('.')}").rows[:], rest)


def test_columns_are_named_in_ranges_by_their_numbers(tmp_path):
    frame = pd.DataFrame({f"e{i}": Z[:, i % 4] + i for i in (0, 3, 1, 2, 4, 5)})
    frame["e4"] = frame["e4"].astype(str).where(frame.index != 3, "?")
    frame["e1"] = True
    frame.to_parquet(tmp_path / "t.parquet")
    with refused(where="t.parquet:e1", got="bool", advice="2 such columns out, say FILE:e0,e2..e3,e5."):
        read_embeddings(tmp_path / "t.parquet")
    found = read_embeddings(f"{tmp_path / 't.parquet'}:e0,e2..e3,e5")
    assert np.allclose(found.rows[:], frame[["e0", "e2", "e3", "e5"]])
    with refused(got="'e2..e9'"):
        read_embeddings(f"{tmp_path / 't.parquet'}:e0,e2..e9")


def test_decimals_of_a_database_are_numbers_and_other_types_are_named(tmp_path):
    held = pa.Table.from_pandas(table())
    decimals = pa.array([Decimal(f"{v:.6f}") for v in Z[:, 0].tolist()], pa.decimal128(12, 6))
    keys = pa.array([Decimal(i) for i in range(7, 7 + N)], pa.decimal128(12, 0))
    pq.write_table(held.set_column(0, "e0", decimals).append_column("id", keys), tmp_path / "t.parquet")
    found = read_embeddings(tmp_path / "t.parquet")
    assert np.allclose(found.rows[:], Z, atol=1e-6) and found.ids[0] == "7"
    for wrong, got in ((pa.array([True] * N), "bool"), (pa.nulls(N), "null"), (pa.array(["0.5"] * N), "written as text")):
        pq.write_table(held.set_column(3, "e3", wrong), tmp_path / "t.parquet")
        with refused(where="t.parquet:e3", got=got):
            read_embeddings(tmp_path / "t.parquet")


def test_a_column_of_words_that_is_numbered_like_the_dimensions_is_none_of_them(tmp_path):
    frame = pd.DataFrame(np.c_[NAMES.astype(object), Z], columns=[str(i) for i in range(5)])
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert read_embeddings(tmp_path / "t.csv").reading.embedding == "columns 1..4"
    table(e4="note").to_csv(tmp_path / "t.csv", index=False)
    assert read_embeddings(tmp_path / "t.csv").reading.embedding == "columns e0..e3"


def test_the_y_of_a_place_is_no_label_and_the_y_beside_an_array_x_is_one(tmp_path):
    places = {"x": np.arange(N) % 9, "y": np.arange(N) % 7}
    pd.DataFrame({**places, "embedding": Z.tolist()}).to_parquet(tmp_path / "t.parquet")
    found = read_embeddings(tmp_path / "t.parquet")
    assert found.labels is None and found.reading.unused == ("x (int64)", "y (int64)")
    assert "--labels FILE:y takes it" in found.reading.said()
    assert list(match_labels(f"{tmp_path / 't.parquet'}:y", N)[0]) == list(places["y"])
    pd.DataFrame({"x": Z[:, 0], "y": Z[:, 1], "embedding": Z.tolist()}).to_parquet(tmp_path / "t.parquet")
    assert read_embeddings(tmp_path / "t.parquet").reading.remarks == ()
    table(x=Z[:, 0], y=[f"kind {i % 3}" for i in range(N)]).to_csv(tmp_path / "t.csv", index=False)
    assert read_embeddings(tmp_path / "t.csv").reading.labels == "y", "a place is no text"
    np.savez(tmp_path / "t.npz", x=Z, y=places["y"])
    assert list(read_embeddings(tmp_path / "t.npz").labels) == list(places["y"])
    pd.DataFrame({"x": NAMES, "y": places["y"]}).to_csv(tmp_path / "y.csv", index=False)
    assert list(match_labels(tmp_path / "y.csv", N, [NAMES.astype(object)])[0]) == list(places["y"])


def test_labels_that_all_differ_are_asked_about(tmp_path):
    """ImageNet's val.txt has a file and its label on each line."""
    (tmp_path / "val.txt").write_text("\n".join(f"ILSVRC_{i:08d}.JPEG {i % 3}" for i in range(N)))
    with refused(where="val.txt", got="30 texts that all differ", advice="filename,label"):
        match_labels(tmp_path / "val.txt", N)


@pytest.mark.parametrize("name", ["species", "label"])
def test_texts_that_all_differ_are_labels_where_the_caller_names_their_column(tmp_path, name):
    frame = pd.DataFrame({name: [f"sp {i}" for i in range(N)], "place": list("ab") * (N // 2)})
    frame.to_csv(tmp_path / "l.csv", index=False)
    labels, reading = match_labels(f"{tmp_path / 'l.csv'}:{name}", N)
    assert list(labels) == list(frame[name]) and "every item has a class of its own" in reading.remarks
    frame[[name]].to_csv(tmp_path / "l.csv", index=False)
    if name == "label":
        with refused(got="30 texts that all differ", advice=f"{tmp_path / 'l.csv'}:label takes each text"):
            match_labels(tmp_path / "l.csv", N)
    labels, reading = match_labels(f"{tmp_path / 'l.csv'}:{name}", N, what="subgroups")
    assert list(labels) == list(frame[name]) and reading.remarks == ("every item has a subgroup of its own",)
    assert match_labels(f"{tmp_path / 'l.csv'}:{name}", N)[1].unused == ()


def test_a_first_line_that_may_be_a_name_can_be_named(tmp_path):
    """Of one column of words it cannot be known whether the first is its name."""
    file = tmp_path / "cameras.csv"
    file.write_text("camera\n" + "front\nback\n" * (N // 2))
    with refused(expected="30 subgroups", got="31", advice=f"{file}:camera"):
        match_labels(file, N, what="subgroups")
    assert list(match_labels(f"{file}:camera", N)[0][:2]) == ["front", "back"]
    with refused(expected="an array called lens"):
        match_labels(f"{file}:lens", N)
    np.save(tmp_path / "t.npy", Z)
    (tmp_path / "ids.txt").write_text("bild\n" + "\n".join(NAMES))
    with refused(expected="30 ids", got="31", advice=f"{tmp_path / 'ids.txt'}:bild"):
        with_ids(read_embeddings(tmp_path / "t.npy"), tmp_path / "ids.txt", "--ids")
    assert list(with_ids(read_embeddings(tmp_path / "t.npy"), f"{tmp_path / 'ids.txt'}:bild", "--ids").ids) == list(NAMES)
