"""Folders with a file for each split: ids and labels in files beside it, also those that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from builders import refused
from distillscope import progress
from distillscope.audits.run import Reads, audit_inputs
from distillscope.inputs.embeddings import read_embeddings
from distillscope.teachers.models import embeddings

N = 40
Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3
NAMES = [f"n{i:02d}.png" for i in range(N)]
LINES = "\n".join(NAMES)
CANNOT_BE_LABELS = {
    "test_labels.npy": (Y[:5], "got 5"),
    "test_targets.npy": (np.eye(N, 10) + 0.1, "got float64 of shape (40, 10)"),
    "test_y.npy": (Z[:, 0], "in row 0"),
    "test-labels.npy": (np.array(NAMES, object), "pickled objects"),
    "labels_test.txt": (LINES, "40 texts that all differ"),
    "test.labels.npz": ("damaged", "BadZipFile"),
    "test_labels.csv": ("filename,label\n" + "\n".join(f"{n},{y}" for n, y in zip(NAMES, Y, strict=True)), "'filename'"),
    "y-test.npy": (np.zeros(N, int), "all items are of one class"),
}


def folder(path, **files):
    """A folder with test.npy and other files by their names."""
    path.mkdir(exist_ok=True)
    np.save(path / "test.npy", Z)
    for name, held in files.items():
        if isinstance(held, str):
            (path / name).write_text(held)
        else:
            np.save(path / name, held, allow_pickle=True)
    return path


def audited(path, **more):
    return audit_inputs(str(path), str(path), groups=["alignment"], intervals=False, **more)


def test_ids_and_labels_of_a_split_may_stand_in_files_of_their_own(tmp_path):
    np.save(tmp_path / "test.npy", Z)
    for ids, labels in (("test_ids.npy", "test_labels.npy"), ("ids_test.npy", "y_test.npy"),
                        ("test-filenames.npy", "test.targets.npy")):
        np.save(tmp_path / ids, np.array(NAMES)), np.save(tmp_path / labels, Y)
        np.save(tmp_path / "train_labels.npy", Y[:5])
        (tmp_path / "test_class_names.txt").write_text("cat\ndog\nemu\n")
        found = read_embeddings(tmp_path)
        assert list(found.ids) == NAMES and list(found.labels) == list(Y)
        assert (found.reading.ids, found.reading.labels) == (ids, labels)
        assert found.reading.unused == ("file test_class_names.txt",)
        assert read_embeddings(f"{tmp_path}@none").ids is None
        (tmp_path / ids).unlink(), (tmp_path / labels).unlink()
    (tmp_path / "test_labels.txt").write_text("\n".join(map(str, Y)))
    found = read_embeddings(tmp_path)
    assert found.ids is None and list(found.labels) == list(Y)


@pytest.mark.parametrize("name", list(CANNOT_BE_LABELS))
def test_a_file_that_cannot_be_labels_is_left_and_the_output_says_why(tmp_path, name):
    held, why = CANNOT_BE_LABELS[name]
    said = audited(folder(tmp_path / "f", **{name: held})).inputs["teacher"]["said"]
    assert "no labels." in said and f"file {name} is not taken as labels: " in said and why in said
    np.save(tmp_path / "y.npy", Y)
    assert audited(tmp_path / "f", labels=str(tmp_path / "y.npy")).inputs["labels"]["labels"] == "y.npy"


def test_why_a_training_set_has_no_labels_is_said_once(tmp_path):
    path = folder(tmp_path / "f", **{"test_labels.npy": Y, "train.npy": Z, "train_labels.npy": Y[:5]})
    with refused(where="--train-labels", got="none (the file train_labels.npy is not taken as labels") as caught:
        audited(path, train_split="train")
    assert caught.value.got.count("train_labels.npy") == 1


def test_two_files_of_labels_are_asked_about_where_their_classes_differ_and_none_is_given(tmp_path):
    path = folder(tmp_path / "f", **{"test_labels.npy": Y, "test_targets.txt": "\n".join("abc"[y] for y in Y)})
    assert read_embeddings(path).reading.labels == "test_labels.npy"
    folder(path, **{"test_targets.txt": "\n".join("abcd"[i % 4] for i in range(N))})
    with refused(expected="one file of labels", got=("test_labels.npy", "test_targets.txt"), advice="--labels FILE"):
        read_embeddings(path, where="--teacher")
    given = audited(path, labels=f"{path / 'test_targets.txt'}")
    assert given.inputs["teacher"]["unused"] == ["file test_labels.npy", "file test_targets.txt"]
    folder(path, **{"test_targets.txt": "0\n1\n"})
    assert read_embeddings(path).reading.labels == "test_labels.npy"


def test_ids_so_called_come_first_and_must_be_usable_unless_ids_are_given(tmp_path):
    path = folder(tmp_path / "f", **{"test_ids.npy": np.arange(N) + 7, "test_paths.npy": np.array(NAMES, object)})
    found = read_embeddings(path)
    assert found.ids[0] == "7" and found.reading.unused == ("file test_paths.npy",)
    folder(path, **{"test_ids.npy": np.arange(5)})
    with refused(where="test_ids.npy", expected="40", got="5", advice=f"{path}@none"):
        read_embeddings(path, where="--teacher")
    assert read_embeddings(f"{path}@none").ids is None
    (tmp_path / "names.txt").write_text(LINES)
    said = audited(path, reading=Reads(ids=str(tmp_path / "names.txt"))).inputs["teacher"]["said"]
    assert "ids from 'names.txt'" in said and "is not taken" not in said
    (path / "test_ids.npy").unlink()
    said = audited(path).inputs["teacher"]["said"]
    assert "no ids" in said and "file test_paths.npy is not taken as ids" in said and "pickled" in said


def test_several_files_of_names_are_asked_about_where_they_differ(tmp_path):
    path = folder(tmp_path / "f", **{"test_paths.txt": "\n".join(f"a/{n}" for n in NAMES), "test_names.txt": LINES})
    assert read_embeddings(path).reading.ids == "test_paths.txt"
    folder(path, **{"test_names.txt": "\n".join(NAMES[::-1])})
    with refused(expected="one file of ids", got=("test_names.txt", "test_paths.txt"), advice="test_ids"):
        read_embeddings(path)
    (path / "test_names.txt").rename(path / "test_ids.txt")
    assert read_embeddings(path).reading.ids == "test_ids.txt"
    folder(path, **{"test_ids.txt": "\n".join(["a"] * N)})
    with refused(got="39 repeated", advice="FILE@none"):
        audited(path)


def test_labels_beside_a_split_are_matched_by_the_ids_that_are_given(tmp_path):
    path = folder(tmp_path / "f", **{"test_labels.csv": "filename,label\n" + "\n".join(
        f"{n},{y}" for n, y in zip(NAMES[::-1], Y[::-1], strict=True))})
    (tmp_path / "names.txt").write_text(LINES)
    found = audited(path, reading=Reads(ids=str(tmp_path / "names.txt")))
    assert found.inputs["teacher"]["labels"] == "test_labels.csv" and found.inputs["pairing"]["by"] == "id"
    assert not any("got none" in held.get("said", "") for held in found.inputs.values())
    found = read_embeddings(path, ids_file=("--ids", str(tmp_path / "names.txt")))
    assert list(found.labels) == list(Y)


class Items:
    """What a study asks a teacher about."""

    def __init__(self, ids):
        self.ids, self.split = np.array(ids), "test"

    def __len__(self):
        return len(self.ids)


def test_a_teacher_of_a_study_needs_no_labels_and_no_names_of_other_things(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    path = folder(tmp_path / "f", **{"test_labels.npy": Y, "test_targets.npy": Y[::-1], "test_y.npy": Y[:3]})
    assert np.array_equal(embeddings(path=path).lookup(Items(NAMES)), Z) and not said
    for listed in ("\n".join(f"slide {i // 8}" for i in range(N)), "\n".join(f"elsewhere {i}" for i in range(N)), "a\nb\n"):
        folder(path, **{"test_files.txt": listed})
        teacher = embeddings(path=path)
        assert np.array_equal(teacher.lookup(Items(NAMES)), Z) and np.array_equal(teacher.lookup(Items(NAMES)), Z)
        assert len(said) == 1 and "test_files.txt is not taken as ids" in said.pop()
    folder(path, **{"test_files.txt": "\n".join(NAMES[::-1])})
    assert np.array_equal(embeddings(path=path).lookup(Items(NAMES)), Z[::-1]) and not said
    folder(path, **{"test_files.txt": "\n".join([*NAMES[1:], "another"])})
    with refused(got="1 of 40 missing"):
        embeddings(path=path).lookup(Items(NAMES))
    folder(path, **{"test_ids.txt": "\n".join(f"elsewhere {i}" for i in range(N))})
    with refused(got="40 of 40 missing"):
        embeddings(path=path).lookup(Items(NAMES))
