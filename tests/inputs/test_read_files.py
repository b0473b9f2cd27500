"""Each format gives back what was written, left on disk where the format allows; ids align rows.

And folders (clip-retrieval's layout, splits, our cache, trials, runs), and any bytes in a file: embeddings or one line.
"""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from builders import refused
from builders.made import COUNT, DIM, FORMATS, IDS, LABELS, embeddings, written
from builders.tiny import finished_run
from distillscope.errors import UserError
from distillscope.inputs.class_text import read_class_text
from distillscope.inputs.embeddings import Embeddings, align, read_embeddings, read_labels
from distillscope.inputs.formats import READERS, suffix_of
from distillscope.inputs.members import strings
from distillscope.measure.audit import audit_one
from distillscope.measure.rows import Rows, Stored

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_back_what_was_written(tmp_path, name):
    found = read_embeddings(written(tmp_path, name))
    assert (np.asarray(found.rows) == embeddings()).all()  # also from the decimals of a float32
    assert found.rows.shape == (COUNT, DIM) and found.name == name.removesuffix(suffix_of(Path(name)))
    _, has_ids, has_labels = FORMATS[name]
    assert (found.ids is not None, found.labels is not None) == (has_ids, has_labels)
    if has_ids:
        assert list(found.ids) == ([str(i) for i in range(COUNT)] if name == "fixed.parquet" else IDS)
    if has_labels:
        wanted = [f"class {n}" for n in LABELS] if name == "columns.parquet" else LABELS.tolist()
        assert found.labels.tolist() == wanted and found.labels.dtype.kind in "iU"
    if has_labels:
        assert read_labels(tmp_path / name, COUNT).tolist() == wanted


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_float_is_memory_mapped(tmp_path, dtype, order):
    z = np.asarray(embeddings().astype(dtype), order=order)
    np.save(tmp_path / "a.npy", z)
    np.savez(tmp_path / "a.npz", z=z)
    for name in ("a.npy", "a.npz"):
        rows = read_embeddings(tmp_path / name).rows
        assert isinstance(rows, np.memmap) and rows.dtype == z.dtype and (rows == z).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_float(tmp_path, dtype):
    z = torch.from_numpy(embeddings()).to(dtype)
    save_file({"z": z}, tmp_path / "a.safetensors")
    torch.save(z, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        rows = read_embeddings(tmp_path / name).rows
        assert (np.asarray(rows, np.float64) == z.double().numpy()).all()
        assert (Rows(rows).take(np.array([3, 1])) == z.double().numpy()[[3, 1]]).all()


def test_parquet_of_half_precision_and_of_tensors(tmp_path):
    z = embeddings(np.float16)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), DIM)
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float16(), [DIM]), lists)
    pq.write_table(pa.table({"z": tensors}), tmp_path / "a.parquet")
    found = read_embeddings(tmp_path / "a.parquet").rows
    assert found.dtype == np.float16 and (np.asarray(found) == z).all()


def test_one_array_among_several_is_named_after_a_colon(tmp_path):
    z = embeddings()
    np.savez(tmp_path / "two.npz", a=z, b=2 * z)
    save_file({"a": torch.from_numpy(z), "b": torch.from_numpy(2 * z)}, tmp_path / "two.safetensors")
    for name in ("two.npz", "two.safetensors"):
        with refused(got=("2 (a", "b"), advice="FILE:a"):
            read_embeddings(tmp_path / name)
        found = read_embeddings(f"{tmp_path / name}:b")
        assert (np.asarray(found.rows) == 2 * z).all() and found.name == f"{name}:b"
        with refused(got="'c'"):
            read_embeddings(f"{tmp_path / name}:c")
    np.savez(tmp_path / "named.npz", embeddings=z, logits=z[:, :2])
    assert read_embeddings(tmp_path / "named.npz").rows.shape == (COUNT, DIM)


def test_csv_headers_are_told_from_rows(tmp_path):
    z = embeddings()
    frame = pd.DataFrame(z)
    frame.to_csv(tmp_path / "numbered.csv", index=False)  # a header of 0,1,2,...
    frame[frame[0] > 0].to_csv(tmp_path / "gaps.csv", header=[f"d{i}" for i in range(DIM)], index_label="id")
    assert read_embeddings(tmp_path / "numbered.csv").rows.shape == (COUNT, DIM)
    gaps = read_embeddings(tmp_path / "gaps.csv")
    assert gaps.rows.shape[1] == DIM and list(gaps.ids) == [str(i) for i in np.flatnonzero(z[:, 0] > 0)]


def test_labels_from_any_file(tmp_path):
    np.save(tmp_path / "l.npy", LABELS.astype(np.float32)[:, None])
    np.savez(tmp_path / "l.npz", y=LABELS)
    (tmp_path / "l.txt").write_text("\n".join(map(str, LABELS)) + "\n")
    (tmp_path / "bare.csv").write_text("\n".join(map(str, LABELS)) + "\n")
    pd.DataFrame({"id": IDS, "class": LABELS}).to_csv(tmp_path / "l.csv", index=False)
    pd.DataFrame({"label": pd.Categorical(LABELS)}).to_parquet(tmp_path / "l.parquet")
    torch.save(torch.from_numpy(LABELS), tmp_path / "l.pt")
    for name in ("l.npy", "l.npz", "l.npz:y", "l.txt", "bare.csv", "l.csv", "l.csv:class", "l.parquet", "l.pt"):
        found = read_labels(tmp_path / name, COUNT)
        assert found.tolist() == LABELS.tolist() and found.dtype == np.int64, name
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert read_labels(tmp_path / "names.txt", 2).tolist() == ["cat", "dog"]


def test_labels_with_ids_are_aligned(tmp_path):
    shuffled = np.random.default_rng(0).permutation(COUNT)
    pd.DataFrame({"id": np.array(IDS)[shuffled], "label": LABELS[shuffled]}).to_csv(tmp_path / "l.csv", index=False)
    assert read_labels(tmp_path / "l.csv", COUNT, np.array(IDS, object)).tolist() == LABELS.tolist()
    assert read_labels(tmp_path / "l.csv", 2, np.array(IDS[4:6], object)).tolist() == LABELS[4:6].tolist()
    assert read_labels(tmp_path / "l.csv", COUNT).tolist() == LABELS[shuffled].tolist()
    some = read_labels(tmp_path / "l.csv", 2, np.array([IDS[0], "none.png"], object))
    assert np.ma.getmaskarray(some).tolist() == [False, True] and some[0] == LABELS[0]
    with refused(got="none in 'id'"):
        read_labels(tmp_path / "l.csv", 2, np.array(["a", "b"], object))


def test_text_is_read_whole(tmp_path):
    save_file({"text": torch.eye(4).bfloat16()}, tmp_path / "text.safetensors")
    text, _ = read_class_text(tmp_path / "text.safetensors")
    assert isinstance(text, np.ndarray) and (text == np.eye(4)).all()


# -- rows that stay where they are -----------------------------------------------------------------------------------------


def stored() -> tuple[Stored, np.ndarray]:
    z = embeddings()
    return Stored([z[:7], z[7:8], z[8:]]), z


@pytest.mark.parametrize("chosen", [None, [5, 3, 23, 7, 8, 6, 6]])
def test_stored_rows_read_like_one_array(chosen):
    many, z = stored()
    if chosen is not None:
        many, z = many.take(np.array(chosen)), z[chosen]
    count = len(z)
    slices = [slice(a, b, s) for a in (None, 0, 3, 7, -2) for b in (None, 1, 5, 8, -1, 99) for s in (None, 2, -1)]
    for index in [*slices, np.array([0, count - 1, 1]), np.array([], int)]:
        assert np.array_equal(many[index], z[index]), index
    assert many.shape == z.shape and len(many) == count and np.array_equal(np.asarray(many), z)
    assert np.array_equal(many.take(np.array([2, 0])).take(np.array([1]))[:], z[[0]])


def test_bits_of_bfloat16_are_its_floats():
    values = torch.tensor([[1.0, -2.5, 3e38, 1e-40, 0.0, float("inf")]]).bfloat16()
    bits = values.view(torch.int16).numpy().view(np.uint16)
    assert (Stored([bits])[:] == values.float().numpy()).all() and Stored([bits]).dtype == np.float32


def test_an_audit_of_stored_rows_is_that_of_the_array():
    z = np.random.default_rng(1).normal(size=(300, 4))
    many = Stored([z[200:], z[:200]]).take(np.r_[100:300, 0:100])
    assert np.array_equal(many[:], z)
    whole, parts = audit_one(z, intervals=False), audit_one(many, intervals=False)
    assert {k: v.value for k, v in whole.measured.items()} == {k: v.value for k, v in parts.measured.items()}


def side(name: str, ids: list[str] | None, labels: list | None = None, count: int | None = None) -> Embeddings:
    """Row i is made from the id, so that rows tell whose they are."""
    numbers = np.array([int(i) for i in ids]) if ids is not None else np.arange(count)
    return Embeddings(np.outer(numbers, [1.0, 2.0]), None if ids is None else strings(ids, name),
                      None if labels is None else np.array(labels), name, named=True)


@given(st.lists(st.integers(0, 30), min_size=1, unique=True), st.lists(st.integers(0, 30), min_size=1, unique=True))
def test_alignment_keeps_the_common_items_in_the_teachers_order(first, second):
    teacher, student = side("t", [str(i) for i in first]), side("s", [str(i) for i in second])
    common = [i for i in first if i in second]
    if not common:
        with refused(got="none in common"):
            align(teacher, student)
        return
    a, b, pairing = align(teacher, student)
    assert np.asarray(a.rows)[:, 0].tolist() == np.asarray(b.rows)[:, 0].tolist() == common
    assert list(a.ids) == list(b.ids) == [str(i) for i in common]
    assert (pairing.note is None) == (first == second) and pairing.matched == len(common) and pairing.by == "id"
    assert pairing.dropped == (len(first) - len(common), len(second) - len(common))
    if any(pairing.dropped):
        dropped = len(first) - len(common)
        assert f"{len(common)} items in both; dropped {dropped} of {len(first)} of the teacher, " in pairing.note
        assert f"{len(second) - len(common)} of {len(second)} of the student" in pairing.note


def test_rows_in_order_are_not_copied():
    teacher, student = side("t", ["1", "2"]), side("s", ["1", "2"])
    a, b, pairing = align(teacher, student)
    assert a.rows is teacher.rows and b.rows is student.rows and pairing.note is None
    longer = side("s", ["2", "1", "3"])
    a, b, _ = align(teacher, longer)
    assert a.rows is teacher.rows and np.shares_memory(b.rows.parts[0], longer.rows)


def test_without_ids_rows_go_by_order():
    a, b, pairing = align(side("t", None, count=3), side("s", None, count=3))
    assert len(a) == len(b) == 3 and pairing.by == "order" and "neither side has ids" in pairing.note
    assert "only the teacher has ids" in align(side("t", ["1", "2"]), side("s", None, count=2))[2].note
    with refused(where="student s", expected="3", got="2"):
        align(side("t", None, count=3), side("s", ["1", "2"]))


def test_ids_that_repeat_are_refused():
    with refused(where="student s ids", got="2 repeated, first '1'"):
        align(side("t", ["1", "2"]), side("s", ["1", "1", "1", "2"]))
    with refused(where="teacher t ids"):
        align(side("t", ["1", "1"]), side("s", ["1", "1"]))


def test_labels_that_disagree_tell_that_rows_do_not_match():
    with refused(got="others for 2 of 3 items"):
        align(side("t", None, [0, 1, 0], 3), side("s", None, [0, 0, 1], 3))
    a, b, _ = align(side("t", ["1", "2"], [7, 8]), side("s", ["2", "1"], [8, 7]))
    assert a.labels.tolist() == b.labels.tolist() == [7, 8]
    align(side("t", None, [0, 1, 0], 3), side("s", None, ["zero", "one", "zero"], 3))
    with refused(got="others for 1 of 5 items"):  # whatever the classes are called
        align(side("t", None, [0, 1, 0, 1, 0], 5), side("s", None, ["zero", "one", "one", "one", "zero"], 5))


def write_shards(folder, sizes, ids=True, labels=True):
    """clip-retrieval's files, with shard 10 after shard 9."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    edges = np.cumsum([0, *sizes])
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        np.save(folder / "img_emb" / f"img_emb_{i}.npy", embeddings()[a:b])
        table = {"caption": ["x"] * (b - a), "image_path": IDS[a:b], "label": LABELS[a:b]}
        table = {k: v for k, v in table.items() if {"image_path": ids, "label": labels}.get(k, True)}
        pd.DataFrame(table).to_parquet(folder / "metadata" / f"metadata_{i}.parquet")


def test_shards_follow_their_numbers_and_stay_on_disk(tmp_path):
    write_shards(tmp_path / "clip", [2] * 12)
    for path in (tmp_path / "clip", tmp_path / "clip" / "img_emb"):
        found = read_embeddings(path)
        assert isinstance(found.rows, Stored) and all(isinstance(p, np.memmap) for p in found.rows.parts)
        assert (found.rows[:] == embeddings()).all() and list(found.ids) == IDS and found.name == "clip"
        assert found.labels.tolist() == LABELS.tolist()
    assert read_labels(tmp_path / "clip" / "metadata" / "metadata_0.parquet", 2).tolist() == LABELS[:2].tolist()


def test_shards_without_ids_or_metadata(tmp_path):
    write_shards(tmp_path, [COUNT], ids=False, labels=False)
    found = read_embeddings(tmp_path)
    assert isinstance(found.rows, np.memmap) and found.ids is None and found.labels is None
    (tmp_path / "metadata" / "metadata_0.parquet").unlink()
    assert read_embeddings(tmp_path).ids is None


def test_shards_that_do_not_fit(tmp_path):
    write_shards(tmp_path / "a", [12, 12])
    (tmp_path / "a" / "metadata" / "metadata_1.parquet").unlink()
    with refused(got="none for img_emb_1.npy"):
        read_embeddings(tmp_path / "a")
    write_shards(tmp_path / "b", [12, 12])
    np.save(tmp_path / "b" / "img_emb" / "img_emb_1.npy", embeddings()[:12, :3])
    with refused(where="img_emb_1.npy", expected=("5", "img_emb_0.npy"), got="3"):
        read_embeddings(tmp_path / "b")
    np.save(tmp_path / "b" / "img_emb" / "img_emb_1.npy", embeddings()[:11])
    with refused(where="metadata_1.parquet", expected="11", got="12"):
        read_embeddings(tmp_path / "b")


def test_splits_of_a_folder(tmp_path):
    np.save(tmp_path / "train.npy", embeddings())
    np.savez(tmp_path / "test.npz", z=embeddings()[:4], ids=IDS[:4])
    write_shards(tmp_path / "validation", [COUNT])
    (tmp_path / "train_ids.txt").write_text("\n".join(IDS))
    assert list(read_embeddings(tmp_path, split="train").ids) == IDS
    assert read_embeddings(tmp_path).rows.shape == (4, DIM)
    assert read_embeddings(tmp_path, split="validation").name == "validation"
    with refused(got="none of them", advice="train.npy"):
        read_embeddings(tmp_path, split="other")
    (tmp_path / "train_ids.txt").write_text("\n".join(IDS[1:]))
    with refused(where="train_ids.txt", expected="24", got="23"):
        read_embeddings(tmp_path, split="train")
    np.save(tmp_path / "test.npy", embeddings())
    with refused(got="test.npy, test.npz"):
        read_embeddings(tmp_path)


def test_a_folder_without_embeddings(tmp_path):
    with refused(where="--teacher", got="none of them"):
        read_embeddings(tmp_path, where="--teacher")


@pytest.mark.slow
def test_a_run_names_its_parts_and_a_trial_is_read():
    run = finished_run()
    with refused(got="a whole run"):
        read_embeddings(run)
    reference, trial = (sorted((run / kind).iterdir())[0] for kind in ("references", "trials"))
    teacher, student = read_embeddings(reference), read_embeddings(trial)
    assert student.name == trial.name and student.labels is not None
    first, second, pairing = align(teacher, student)
    assert pairing.note is None and first.rows.shape[0] == second.rows.shape[0] == 60
    with refused(where="digits--test_resnet--augmented--S--seed1", got="'train'"):
        read_embeddings(trial, split="train")


@pytest.mark.slow
def test_an_entry_of_the_cache_is_read_and_aligned():
    run = finished_run()
    described = (run.parent / "cache" / "embeddings").glob("*/entry.json")
    entries = [read_embeddings(e.parent) for e in described if '"perturbation": null' in e.read_text()]
    student = read_embeddings(sorted((run / "trials").iterdir())[0])
    teacher = next(e for e in entries
                   if set(student.ids) <= set(e.ids))  # other tests keep theirs, of fewer images, in this cache
    first, second, pairing = align(teacher, student)
    assert list(first.ids) == list(second.ids) and len(second) == 60 and "aligned by id" in pairing.note


def try_to_read(path: Path) -> None:
    """An Embeddings whose rows can all be read, or a UserError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_embeddings(path)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        else:
            assert isinstance(found, Embeddings)
            rows = np.asarray(found.rows)
            assert rows.ndim == 2 and rows.dtype.kind == "f" and rows.nbytes < 2**24
        try:
            read_labels(path, 3)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(("line", "got"), [(b'{"id": "b", ', "Expecting"), (b"[1, 2]", "[1, 2]"),
                                           (b'{"id": "\xff"}', "other bytes"), (b"[" * 100_000, "too deep")])
def test_a_line_that_is_no_json_object_is_named_before_arrow_reads_it(tmp_path, line, got):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": "a", "embedding": [1.0, 2.0]}\n\n' + line + b"\n")
    with refused(where="line 3", got=got, advice="on each line"):
        read_embeddings(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_nan_beside_the_embeddings_is_read_though_json_has_none(tmp_path, name):
    rows = [{"id": f"a{i}", "embedding": [1.0, i], "score": float("nan")} for i in range(3)]
    text = json.dumps(rows) if name == "rows.json" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text)
    assert read_embeddings(tmp_path / name).ids.tolist() == ["a0", "a1", "a2"]


def test_a_damaged_state_of_a_saved_data_set_is_named(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text('{"_data_files": [{"name": "data.arrow"}]}')
    with refused(where=["state.json", "_data_files.0.filename"], advice="save_to_disk"):
        read_embeddings(tmp_path)


@functools.cache
def valid(name: str, folder: str) -> bytes:
    return written(Path(folder), name).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("suffix", READERS)
@given(data=st.binary(max_size=300))
@QUICK
def test_random_bytes(folder, suffix, data):
    path = folder / f"random{suffix}"
    path.write_bytes(data)
    try_to_read(path)


@pytest.mark.parametrize("name", FORMATS)
@given(draw=st.data())
@QUICK
def test_damaged_files(folder, name, draw):
    good = bytearray(valid(name, str(folder)))
    for at in draw.draw(st.lists(st.integers(0, len(good) - 1), max_size=4), "places"):
        good[at] ^= draw.draw(st.integers(1, 255), "change")
    path = folder / f"damaged-{name}"
    path.write_bytes(good[: draw.draw(st.integers(0, len(good)) | st.just(len(good)), "kept")])
    try_to_read(path)
