"""JSON and torch files of dicts and lists: tables either way round, batches, and several sets in one file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from builders import refused
from distillscope.inputs.embeddings import align, read_embeddings

N = 40
Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3
NAMES = [f"n{i:02d}" for i in range(N)]
ORDER = np.random.default_rng(1).permutation(N)
COLUMNS = {f"e{i}": Z[:, i].tolist() for i in range(4)}


def saved(folder, held, name="t.json"):
    path = folder / name
    torch.save(held, path) if name.endswith(".pt") else path.write_text(json.dumps(held))
    return read_embeddings(path)


def the_same(found, ids=None, labels=None):
    assert np.allclose(found.rows[:], Z), found.reading.said()
    assert (None if found.ids is None else list(found.ids)) == ids, found.reading.said()
    assert (None if found.labels is None else list(found.labels)) == labels, found.reading.said()


@pytest.mark.parametrize("orient", ["columns", "index", "split", "records", "table"])
@pytest.mark.parametrize("ids", [NAMES, [str(100 + i) for i in range(N)]])
def test_each_orientation_of_pandas_gives_the_same_ids_and_labels(tmp_path, orient, ids):
    held = [int(i) for i in ids] if ids is not NAMES else ids
    for vectors in (pd.DataFrame({"embedding": Z.tolist()}), pd.DataFrame(COLUMNS)):
        vectors.assign(id=held, label=Y).to_json(tmp_path / "t.json", orient=orient)
        the_same(read_embeddings(tmp_path / "t.json"), ids, list(Y))
        plain = vectors.copy()
        plain.to_json(tmp_path / "t.json", orient=orient)
        the_same(read_embeddings(tmp_path / "t.json"))
        if orient != "records":  # which has no index
            plain.index = held
            plain.to_json(tmp_path / "t.json", orient=orient)
            the_same(read_embeddings(tmp_path / "t.json"), ids)


def test_a_shuffled_frame_in_json_is_paired_by_its_row_numbers(tmp_path):
    frame = pd.DataFrame({"embedding": Z.tolist()})
    for orient in ("columns", "index", "split"):
        frame.to_json(tmp_path / "t.json", orient=orient)
        frame.iloc[ORDER].to_json(tmp_path / "s.json", orient=orient)
        _, second, pairing = align(read_embeddings(tmp_path / "t.json"), read_embeddings(tmp_path / "s.json"))
        assert pairing.by == "id" and np.allclose(second.rows[:], Z)


def test_numbers_that_may_be_rows_or_columns_are_asked_about(tmp_path):
    for orient in ("columns", "index"):
        pd.DataFrame(Z).to_json(tmp_path / "t.json", orient=orient)
        with refused(expected="names", advice="orient='records'"):
            read_embeddings(tmp_path / "t.json")


@pytest.mark.parametrize("name", ["t.json", "t.pt"])
def test_dicts_by_id_keep_the_labels_that_stand_beside(tmp_path, name):
    vectors = {n: z.tolist() for n, z in zip(NAMES, Z, strict=True)}
    labels = {NAMES[i]: int(Y[i]) for i in ORDER}
    the_same(saved(tmp_path, {"embeddings": vectors, "labels": labels}, name), NAMES, list(Y))
    the_same(saved(tmp_path, {n: {"embedding": vectors[n], "label": labels[n]} for n in NAMES}, name), NAMES, list(Y))
    tensors = {n: torch.tensor(v) for n, v in vectors.items()}
    the_same(saved(tmp_path, {"embeddings": tensors, "labels": {n: torch.tensor(v) for n, v in labels.items()}}, "t.pt"),
             NAMES, list(Y))


def test_some_items_of_a_dict_have_no_label(tmp_path):
    found = saved(tmp_path, {"embeddings": dict(zip(NAMES, Z.tolist(), strict=True)), "labels": dict.fromkeys(NAMES[1:20], 1)
                             | dict.fromkeys(NAMES[20:], 0)})
    the_same(found, NAMES, [np.ma.masked, *[1] * 19, *[0] * 20])
    assert found.reading.unlabelled == 1


def test_dimensions_as_lists_beside_ids_or_labels_are_columns(tmp_path):
    the_same(saved(tmp_path, {**COLUMNS, "label": Y.tolist(), "file": NAMES}), NAMES, list(Y))
    the_same(saved(tmp_path, {**COLUMNS, "label": Y.tolist()}), None, list(Y))


@pytest.mark.parametrize("stem", ["e", "v", "f", "pc", "vec", "embedding_"])
def test_numbered_lists_alone_are_columns_or_items_and_are_asked_about(tmp_path, stem):
    for shape in ((4, N), (N, 4), (30, 64)):
        table = np.random.default_rng(2).normal(size=shape)
        run = f"{stem}0..{stem}{len(table) - 1}"
        with refused(got=(f"{shape[0]} lists of {shape[1]}", "either"), advice=(f"FILE:{run}", "@ids")):
            saved(tmp_path, {f"{stem}{i}": row.tolist() for i, row in enumerate(table)})
        columns = read_embeddings(f"{tmp_path}/t.json:{run}")
        assert np.allclose(columns.rows[:], table.T) and columns.ids is None
        items = read_embeddings(f"{tmp_path}/t.json@ids")
        assert np.allclose(items.rows[:], table) and list(items.ids) == [f"{stem}{i}" for i in range(len(table))]
        assert "Each array is one item's" in items.reading.said()


def test_a_key_that_the_first_object_lacks_is_read(tmp_path):
    rows = [{"embedding": z.tolist(), "file": n, "label": int(y)} for z, n, y in zip(Z, NAMES, Y, strict=True)]
    del rows[0]["label"]
    found = saved(tmp_path, rows)
    assert found.reading.labels == "label" and found.reading.unlabelled == 1 and list(found.labels[1:]) == list(Y[1:])


def test_batches_of_ids_and_labels_are_joined_like_those_of_embeddings(tmp_path):
    cut = [slice(0, 16), slice(16, 32), slice(32, N)]
    found = saved(tmp_path, {"emb": [torch.tensor(Z[c]) for c in cut], "labels": [torch.tensor(Y[c]) for c in cut],
                             "ids": [torch.arange(N)[c] + 7 for c in cut]}, "t.pt")
    the_same(found, [str(i + 7) for i in range(N)], list(Y))
    found = saved(tmp_path, {"emb": [torch.tensor(Z[c]) for c in cut], "labels": [torch.tensor(int(y)) for y in Y],
                             "ids": [NAMES[c] for c in cut]}, "t.pt")
    the_same(found, NAMES, list(Y))


@pytest.mark.parametrize("name", ["t.json", "t.pt"])
def test_ids_and_labels_are_those_of_the_embeddings_that_are_named(tmp_path, name):
    by_id = {"teacher": dict(zip(NAMES, Z.tolist(), strict=True)), "student": {NAMES[i]: Z[i].tolist() for i in ORDER}}
    sets = {"train": {"features": Z.tolist(), "ids": NAMES, "labels": Y.tolist()},
            "test": {"features": Z[ORDER].tolist(), "path": [NAMES[i] for i in ORDER], "labels": Y[ORDER].tolist()}}
    for held, first, second in ((by_id, "teacher", "student"), (sets, "train.features", "test.features")):
        with refused(got="2"):
            saved(tmp_path, held, name)
        sides = [read_embeddings(f"{tmp_path / name}:{key}") for key in (first, second)]
        assert list(sides[1].ids) == [NAMES[i] for i in ORDER], sides[1].reading.said()
        assert held is by_id or list(sides[1].labels) == list(Y[ORDER])
        assert np.allclose(align(*sides)[1].rows[:], Z)
