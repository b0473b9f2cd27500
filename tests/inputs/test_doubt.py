"""In doubt a reader asks, with the words to type; what it left or assumed, it says."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from builders import refused
from distillscope.errors import UserError
from distillscope.inputs import members
from distillscope.inputs.embeddings import align, read_embeddings, read_labels, with_ids
from distillscope.inputs.labels import match_labels

N = 30
Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
NAMES = np.array([f"n{i:02d}" for i in range(N)])
ORDER = np.random.default_rng(1).permutation(N)
Y = np.arange(N) % 3


def table(z=Z, **more) -> pd.DataFrame:
    return pd.DataFrame({f"e{i}": z[:, i] for i in range(z.shape[1])}).assign(**more)


def side(tmp_path, name, **more):
    table(more.pop("z", Z), **more).to_csv(tmp_path / f"{name}.csv", index=False)
    return read_embeddings(tmp_path / f"{name}.csv")


@pytest.mark.parametrize("beside", [{"image_id": 1000 + np.arange(N)}, {"target": Y}, {"score": Z[:, 0]}, {"width": 640},
                                    {"year": 1990 + Y},
                                    {"x1": Z[:, 1], "x2": Z[:, 2], "y1": 0.5, "y2": 0.25}, {"class_0": 1.0, "class_1": 0.0}])
def test_no_other_column_of_numbers_becomes_a_dimension(tmp_path, beside):
    found = side(tmp_path, "t", **beside)
    assert np.allclose(found.rows[:], Z) and found.reading.embedding == "columns e0..e3"
    named = " ".join([str(found.reading.ids), str(found.reading.labels), *found.reading.unused])
    assert all(name in named or f"{name[0]}1..{name[0]}2" in named or "class_" in named for name in beside)


def test_two_runs_are_asked_for_and_each_can_be_named(tmp_path):
    frame = pd.DataFrame(np.c_[Z, 2 * Z], columns=[*(f"a{i}" for i in range(4)), *(f"b{i}" for i in range(4))])
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for file in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        with refused(got="2", advice="FILE:a0..a3"):
            read_embeddings(file)
        for key in ("b", "b0..b3", "b0,b1,b2,b3"):
            assert np.allclose(read_embeddings(f"{file}:{key}").rows[:], 2 * Z)


def test_a_column_of_ids_is_named_or_left_out(tmp_path):
    table(serial=NAMES, filename=NAMES[ORDER]).to_csv(tmp_path / "t.csv", index=False)
    assert list(read_embeddings(tmp_path / "t.csv").ids) == list(NAMES[ORDER])
    assert list(read_embeddings(f"{tmp_path / 't.csv'}@serial").ids) == list(NAMES)
    assert list(read_embeddings(f"{tmp_path / 't.csv'}:e0..e3@serial").ids) == list(NAMES)
    assert read_embeddings(f"{tmp_path / 't.csv'}@none").ids is None
    with refused(got="'serail'", advice="'serial'"):
        read_embeddings(f"{tmp_path / 't.csv'}@serail")
    (tmp_path / "me@work:1").mkdir()
    np.save(tmp_path / "me@work:1" / "t.npy", Z)
    assert len(read_embeddings(tmp_path / "me@work:1" / "t.npy")) == N


def test_a_text_column_that_differs_in_every_row_is_named(tmp_path):
    found = side(tmp_path, "t", bild=NAMES, kind="photo")
    assert found.ids is None and "bild (text, another in every row: add @bild to take it as ids)" in found.reading.said()
    assert "kind (text)" in found.reading.said()


def test_columns_that_hold_the_same_texts_in_another_order_are_asked_about(tmp_path):
    teacher, student = side(tmp_path, "t", bild=NAMES), side(tmp_path, "s", z=Z[ORDER], bild=NAMES[ORDER])
    with refused(got="another order", advice=(f"--teacher {tmp_path / 't'}.csv@bild", f"--student {tmp_path / 's'}.csv@bild")):
        align(teacher, student)
    assert align(teacher, side(tmp_path, "same", bild=NAMES))[2].by == "order"
    named = align(*(read_embeddings(f"{tmp_path / f}.csv@bild") for f in ("t", "s")))
    assert named[2].by == "id" and np.allclose(named[1].rows[:], Z)


def test_ids_that_pair_the_rows_in_two_ways_are_asked_about(tmp_path):
    teacher = side(tmp_path, "t", id=np.arange(N), filename=NAMES)
    student = side(tmp_path, "s", z=Z[ORDER], id=np.arange(N), filename=NAMES[ORDER])
    with refused(got="'id' and 'filename'", advice=("t.csv@id", "t.csv@filename")):
        align(teacher, student)
    assert np.allclose(align(*(read_embeddings(f"{tmp_path / f}.csv@filename") for f in "ts"))[1].rows[:], Z)


def test_file_names_that_contradict_two_counters_are_asked_about_whatever_they_are_called(tmp_path):
    teacher = side(tmp_path, "t", id=np.arange(N), file_name=NAMES)
    for counter in ("id", "image_id"):
        paths = [f"images/{n}.jpg" for n in NAMES[ORDER]]
        student = side(tmp_path, "s", z=Z[ORDER], image_path=paths, **{counter: np.arange(N)})
        with refused(got="'file_name' of the teacher with 'image_path'", advice=("t.csv@file_name", "s.csv@image_path")):
            align(teacher, student)
    other = side(tmp_path, "o", z=Z[ORDER], id=ORDER, image_path=NAMES[ORDER], frame_id=np.arange(N))
    assert np.allclose(align(teacher, other)[1].rows[:], Z), "a counter of something else is no contradiction"


def test_the_columns_that_match_are_the_ids(tmp_path):
    teacher = side(tmp_path, "t", id=5000 + np.arange(N), filename=NAMES)
    student = side(tmp_path, "s", z=Z[ORDER], id=9000 + np.arange(N), path=NAMES[ORDER])
    _, second, pairing = align(teacher, student)
    assert np.allclose(second.rows[:], Z) and pairing.columns == ("filename", "path")
    assert "'filename' of the teacher" in pairing.note


def test_rows_that_pandas_numbered(tmp_path):
    table().to_csv(tmp_path / "t.csv")
    table().iloc[ORDER].to_csv(tmp_path / "s.csv")
    table().to_csv(tmp_path / "again.csv")
    teacher, student, again = (read_embeddings(tmp_path / f"{f}.csv") for f in ("t", "s", "again"))
    assert teacher.ids is None and student.ids is not None
    assert np.allclose(align(teacher, student)[1].rows[:], Z) and align(teacher, student)[2].by == "id"
    assert align(teacher, again)[2].by == "order"


def test_ids_that_cannot_be_read_are_not_passed_over(tmp_path):
    np.savez(tmp_path / "t.npz", embeddings=Z, filenames=NAMES.astype(object))
    with refused(where="filenames", got="pickled objects"):
        read_embeddings(tmp_path / "t.npz")
    assert read_embeddings(f"{tmp_path / 't.npz'}@none").ids is None
    np.savez(tmp_path / "l.npz", embeddings=Z, labels=Y.astype(object))
    said = read_embeddings(tmp_path / "l.npz").reading.said()
    assert "'labels' is not taken as labels: pickled objects" in said.replace("'Labels'", "'labels'")


def test_ids_of_a_file_of_their_own(tmp_path):
    np.save(tmp_path / "t.npy", Z)
    np.save(tmp_path / "s.npy", Z[ORDER])
    (tmp_path / "ids.txt").write_text("\n".join(NAMES) + "\n\n")
    pd.DataFrame({"row": np.arange(N), "filename": NAMES[ORDER]}).to_csv(tmp_path / "s.csv", index=False)
    teacher = with_ids(read_embeddings(tmp_path / "t.npy"), tmp_path / "ids.txt", "--teacher-ids")
    student = with_ids(read_embeddings(tmp_path / "s.npy"), f"{tmp_path / 's.csv'}:filename", "--student-ids")
    assert np.allclose(align(teacher, student)[1].rows[:], Z) and student.reading.ids == "s.csv:filename"
    (tmp_path / "few.txt").write_text("a\nb\n")
    with refused(where=("--ids", "few.txt"), expected="30", got="2"):
        with_ids(teacher, tmp_path / "few.txt", "--ids")


# -- whole numbers, weights, depth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int64])
def test_whole_numbers_are_read_with_a_stated_scale(tmp_path, dtype):
    whole = np.clip(np.round(Z * 30), 0 if np.dtype(dtype).kind == "u" else -127, 127).astype(dtype)
    np.save(tmp_path / "t.npy", whole)
    torch_dtype = {np.uint16: None}.get(dtype, True)
    pq.write_table(pa.table({"embedding": pa.array(whole.tolist(), pa.list_(pa.from_numpy_dtype(dtype)))}),
                   tmp_path / "t.parquet")
    files = [tmp_path / "t.npy", tmp_path / "t.parquet"]
    if torch_dtype:
        save_file({"z": torch.from_numpy(whole)}, tmp_path / "t.safetensors")
        files.append(tmp_path / "t.safetensors")
    for file in files:
        with refused(advice="--scale 127"):
            read_embeddings(file, where="--student")
        with pytest.raises(UserError) as caught:
            read_embeddings(file, where="a library's call")
        assert "--scale" not in str(caught.value)
        found = read_embeddings(file, scale=127)
        assert np.allclose(found.rows[:], whole / 127) and found.rows[3:5].dtype == np.float32
        assert "values divided by 127" in found.reading.said() and np.allclose(found.take(ORDER).rows[:], (whole / 127)[ORDER])


def test_the_weights_of_a_model_are_refused_as_such(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    torch.save(model.state_dict(), tmp_path / "state.pth")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "checkpoint.pt")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for name in ("state.pth", "checkpoint.pt", "model.safetensors"):
        with refused(got="the weights of a model"):
            read_embeddings(tmp_path / name)
    torch.save({"embeddings": torch.from_numpy(Z), "model": model.state_dict()}, tmp_path / "both.pt")
    assert read_embeddings(tmp_path / "both.pt").rows.shape == (N, 4)
    assert read_embeddings(f"{tmp_path / 'state.pth'}:0.weight").rows.shape == (3, 4)


def test_tokens_and_maps_are_to_be_pooled_first(tmp_path):
    np.save(tmp_path / "t.npy", np.zeros((N, 7, 4), np.float32))
    with refused(got="shape (30, 7, 4)"):
        read_embeddings(tmp_path / "t.npy")
    pq.write_table(pa.table({"e": [[[1.0, 2.0], [3.0, 4.0]]] * 3}), tmp_path / "t.parquet")
    with refused(where="t.parquet:e", got="2 lists"):
        read_embeddings(tmp_path / "t.parquet")


def test_empty_rows_are_dropped_by_id_on_both_sides(tmp_path):
    rows = [None if i in (3, 8) else z.tolist() for i, z in enumerate(Z)]
    pq.write_table(pa.table({"id": NAMES, "e": pa.array(rows, pa.list_(pa.float32(), 4)), "label": Y}), tmp_path / "t.parquet")
    np.savez(tmp_path / "s.npz", embeddings=Z, ids=NAMES, labels=Y)
    if int(pa.__version__.partition(".")[0]) < 26:  # it cannot read what it wrote
        with refused(where="t.parquet", expected="a vector in every row", advice="pyarrow>=26"):
            read_embeddings(tmp_path / "t.parquet")
        pq.write_table(pa.table({"id": NAMES, "e": pa.array(rows, pa.list_(pa.float32())), "label": Y}), tmp_path / "t.parquet")
    teacher = read_embeddings(tmp_path / "t.parquet")
    first, second, pairing = align(teacher, read_embeddings(tmp_path / "s.npz"))
    assert teacher.reading.dropped == 2 and "Dropped 2 rows without an embedding" in teacher.reading.said()
    assert pairing.dropped == (0, 2) and np.allclose(first.rows[:], second.rows[:])
    assert first.labels.tolist() == second.labels.tolist()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "t.npz", embeddings=np.zeros((2**16 + 1, 1024), np.float32))
    assert (tmp_path / "t.npz").stat().st_size < 2**20
    with refused(got="bytes that unpack to 268,439,552"):
        read_embeddings(tmp_path / "t.npz")
    monkeypatch.setattr(members, "ALWAYS", 2**20)  # in place of 64 MiB, which take five seconds
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"e0,e1\n" + b"0,0\n" * 2**20))
    with refused(got="unpacks to over 200 times its size"):
        read_embeddings(tmp_path / "t.csv.gz")


@pytest.mark.parametrize(("names", "message"), [
    (["part-0.npy", "part-2.npy"], "without a gap .* got no number 1"),
    (["resnet18.npy", "resnet50.npy"], "none of them. Name one of"),
    (["part-5.npy", "part-6.npy"], "got no number 1"),
    (["part-0.npy", "part-1.npy", "chunk-0.npy"], "one set of parts, got chunk-.* and part-"),
])
def test_folders_whose_files_are_not_parts_of_one_thing(tmp_path, names, message):
    for name in names:
        np.save(tmp_path / name, Z)
    with pytest.raises(UserError, match=message):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("lengths", [(5, 7), (7, 5)])
def test_ids_of_one_part_beside_rows_of_another_are_refused(tmp_path, lengths):
    """12 rows and 12 ids in all: every id from the sixth on was the next row's."""
    for number, (rows, ids) in enumerate(((lengths[0], 6), (lengths[1], 6))):
        named = np.array([f"{number}{i}" for i in range(ids)])
        np.savez(tmp_path / f"part-{number}.npz", embeddings=np.ones((rows, 4)), ids=named)
    with refused(where="part-0.npz", expected=f"{lengths[0]} of 'ids'", got="6"):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("there", [[0], [0, 1]])
def test_parts_whose_names_say_that_there_are_more_are_refused(tmp_path, there):
    for number in there:
        np.save(tmp_path / f"train-{number:05}-of-00003.npy", Z)
    with refused(expected="3 parts", got=str(len(there))):
        read_embeddings(tmp_path, split="train")


def test_parts_of_a_split_and_files_to_pass_over(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "._test-00000-of-00001"):
        pd.DataFrame({"embedding": list(Z), "id": [f"{name}{i}" for i in range(N)]}).to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert len(read_embeddings(tmp_path)) == N and len(read_embeddings(tmp_path, split="train")) == 2 * N


def test_tables_without_names(tmp_path):
    np.savetxt(tmp_path / "z.txt", Z)
    np.savetxt(tmp_path / "z.csv", Z, delimiter=",", header="e0,e1,e2,e3")
    for file, columns in (("z.txt", "0..3"), ("z.csv", "e0..e3")):
        found = read_embeddings(tmp_path / file)
        assert np.allclose(found.rows[:], Z) and found.reading.embedding == f"columns {columns}"
    table().assign(y=Y).to_csv(tmp_path / "y.csv", index=False, header=False)
    with refused(advice="FILE:0..3"):  # whole numbers at the end: labels, or a dimension
        read_embeddings(tmp_path / "y.csv")
    named = read_embeddings(f"{tmp_path / 'y.csv'}:0..3")
    assert np.allclose(named.rows[:], Z) and named.labels.tolist() == Y.tolist()


def test_arrays_that_numpy_shortened_are_refused(tmp_path):
    pd.DataFrame({"id": NAMES, "emb": [str(np.zeros(2000) + i) for i in range(N)]}).to_csv(tmp_path / "t.csv", index=False)
    with refused(where="column 'emb'", expected="7"):
        read_embeddings(tmp_path / "t.csv")


# -- labels ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["filename", "id", "ImageId", "bild"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "npz"])
def test_labels_keyed_by_id_in_any_table(tmp_path, name, suffix):
    frame = pd.DataFrame({"note": "x", name: NAMES[ORDER], "label": Y[ORDER]})
    file = tmp_path / f"y.{suffix}"
    {"csv": lambda: frame.to_csv(file, index=False), "tsv": lambda: frame.to_csv(file, index=False, sep="\t"),
     "jsonl": lambda: frame.to_json(file, orient="records", lines=True), "parquet": lambda: frame.to_parquet(file),
     "npz": lambda: np.savez(file, **{c: frame[c].to_numpy().astype(str) for c in frame})}[suffix]()
    labels, reading = match_labels(file, N, [NAMES.astype(object)])
    assert labels.tolist() == Y.tolist() and reading.ids == name and f"30 labels from 'label', by '{name}'." in reading.said()


def test_items_without_a_label_are_counted(tmp_path):
    pd.DataFrame({"id": NAMES[ORDER][5:], "label": Y[ORDER][5:]}).to_csv(tmp_path / "few.csv", index=False)
    labels, reading = match_labels(tmp_path / "few.csv", N, [NAMES.astype(object)])
    assert reading.unlabelled == 5 and labels.mask.sum() == 5 and "5 items have none" in reading.said()
    np.save(tmp_path / "y.npy", np.where(np.arange(N) < 4, -1, Y))
    assert match_labels(tmp_path / "y.npy", N)[1].unlabelled == 4
    lines = [str(y) for y in Y]
    lines[2] = ""
    for name in ("y.txt", "y.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n\n\n")
        assert match_labels(tmp_path / name, N)[1].unlabelled == 1, name
    np.save(tmp_path / "hot.npy", np.eye(3)[Y])
    assert read_labels(tmp_path / "hot.npy", N).tolist() == Y.tolist()


@pytest.mark.parametrize("spelled", ["NA", "N/A", "#N/A", "na"])
def test_na_is_no_label_beside_numbers_and_a_class_beside_names_and_either_is_said(tmp_path, spelled):
    at = np.arange(N) % 5 == 0
    for label, missing in ((Y.astype(str), True), ((Y + 0.0).astype(str), True), (np.array(["DE", "FR", "US"])[Y], False)):
        frame = pd.DataFrame({"id": NAMES, "label": np.where(at, spelled, label.astype("U4"))})
        frame.to_csv(tmp_path / "y.csv", index=False)
        labels, reading = match_labels(tmp_path / "y.csv", N, [NAMES.astype(object)])
        assert np.array_equal(np.ma.getmaskarray(labels), at & missing)
        frame = table(id=NAMES, label=frame["label"])
        frame.to_parquet(tmp_path / "t.parquet")
        found = read_embeddings(tmp_path / "t.parquet")
        assert np.array_equal(np.ma.getmaskarray(found.labels), at & missing)
        for said in (reading.said(), found.reading.said()):
            assert ("have none" if missing else f"'{spelled}' is taken for a class, since others are names") in said
            assert label[1] != "1" or f"'{spelled}' stands for no label, since the others are numbers" in said


def test_labels_of_other_items_or_two_for_one_are_refused(tmp_path):
    pd.DataFrame({"id": [f"other{i}" for i in range(N)], "label": Y}).to_csv(tmp_path / "y.csv", index=False)
    with refused(got="none in 'id' (first 'other0'"):
        match_labels(tmp_path / "y.csv", N, [NAMES.astype(object)])
    pd.DataFrame({"id": [*NAMES, "n00"], "label": [*Y, 2]}).to_csv(tmp_path / "two.csv", index=False)
    with refused(got="2 for 'n00'"):
        match_labels(tmp_path / "two.csv", N, [NAMES.astype(object)])
    pd.DataFrame({"id": [*NAMES, "n00"], "label": [*Y, 0]}).to_csv(tmp_path / "same.csv", index=False)
    labels, reading = match_labels(tmp_path / "same.csv", N, [NAMES.astype(object)])
    assert labels.tolist() == Y.tolist() and reading.repeated == 1


def test_the_label_column_is_named_where_it_is_not_plain(tmp_path):
    pd.DataFrame({"id": NAMES[ORDER], "art": Y[ORDER], "ort": Y[ORDER] % 2}).to_csv(tmp_path / "y.csv", index=False)
    with refused(advice="FILE:key"):
        match_labels(tmp_path / "y.csv", N, [NAMES.astype(object)])
    assert match_labels(f"{tmp_path / 'y.csv'}:art", N, [NAMES.astype(object)])[0].tolist() == Y.tolist()
    assert match_labels(f"{tmp_path / 'y.csv'}:art@id", N, [NAMES.astype(object)])[0].tolist() == Y.tolist()


def test_labels_of_both_sides_are_one_partition(tmp_path):
    np.savez(tmp_path / "t.npz", embeddings=Z, labels=np.array([f"d{y}" for y in Y]))
    np.savez(tmp_path / "s.npz", embeddings=Z[ORDER], labels=Y[ORDER])
    with refused(got="others for"):
        align(read_embeddings(tmp_path / "t.npz"), read_embeddings(tmp_path / "s.npz"))
    np.savez(tmp_path / "s.npz", embeddings=Z, labels=np.where(np.arange(N) < 9, -1, 2 - Y))
    assert align(read_embeddings(tmp_path / "t.npz"), read_embeddings(tmp_path / "s.npz"))[2].matched == N


def test_labels_of_one_class_or_of_scores_are_no_labels(tmp_path):
    assert side(tmp_path, "one", filename=NAMES, labels=0).labels is None
    found = side(tmp_path, "scores", label=Z[:, 0])
    assert found.labels is None
    assert re.search("'label' is not taken as labels: .* in row 0", found.reading.said().replace("'Label'", "'label'"))


def test_a_reading_is_plain_values(tmp_path):
    found = side(tmp_path, "t", filename=NAMES, label=Y, score=0.5).reading.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["file"] == "t.csv" and found["embedding"] == "columns e0..e3" and found["ids"] == "filename"
    assert found["labels"] == "label"
    assert (found["rows"], found["dims"], found["unlabelled"], found["dropped"],
            found["unused"]) == (N, 4, 0, 0, ["score (float64)"])


def test_labels_with_ids_ask_for_the_embeddings_ids(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 4))
    np.save(tmp_path / "t.npy", rows)
    (tmp_path / "y.csv").write_text("filename,label\n" + "".join(f"{i:03d}.jpg,{i % 2}\n" for i in range(20)))
    with refused(advice="y.csv:label@none"):
        match_labels(tmp_path / "y.csv", 20)
    assert match_labels(f"{tmp_path / 'y.csv'}:label@none", 20)[0].tolist() == [i % 2 for i in range(20)]
    (tmp_path / "numbered.csv").write_text("id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(1, 21)))
    assert match_labels(tmp_path / "numbered.csv", 20)[0].tolist() == [i % 2 for i in range(1, 21)]  # row numbers say the order
