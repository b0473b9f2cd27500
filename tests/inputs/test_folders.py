"""Folders (clip-retrieval's layout, splits, our cache, trials, runs), and any bytes in a file: embeddings or one line."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import refused
from builders.made import COUNT, DIM, FORMATS, IDS, LABELS, embeddings, written
from builders.tiny import finished_run
from distillscope.errors import UserError
from distillscope.inputs.embeddings import Embeddings, align, read_embeddings, read_labels
from distillscope.inputs.formats import READERS
from distillscope.measure.rows import Stored


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


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
