"""What a study keeps for its page: the right items, the right numbers, small files, made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors

from distillscope.data.source import Source
from distillscope.draws import keyed_rng
from distillscope.study import keepsakes
from distillscope.study.keepsakes import Kept, keep, map_of, neighbours, onto, plane


def items(count: int = 120, classes: int = 4, size: tuple[int, int] = (12, 12)) -> Source:
    """Every image one flat colour, which names the item."""
    rng = keyed_rng("keepsakes test", count)
    pixels = np.zeros((count, *size, 3), np.uint8)
    pixels[:] = rng.integers(0, 256, (count, 1, 1, 3))
    labels = np.arange(count) % classes
    names = tuple(f"<class {i}>" for i in range(classes))
    return Source("made", "test", np.array([f"made/{i:03d}" for i in range(count)]), pixels.__getitem__, labels, names, pixels)


def models(test: Source) -> tuple[Kept, Kept]:
    rng = keyed_rng("keepsakes models")
    centres = rng.normal(size=(4, 16)) * 3
    z = (centres[test.labels] + rng.normal(size=(len(test), 16))).astype(np.float32)
    worse = (z @ rng.normal(size=(16, 8)) + 4 * rng.normal(size=(len(test), 8))).astype(np.float32)
    right, wrong = test.labels.copy(), test.labels.copy()
    right[:10] = (right[:10] + 1) % 4
    wrong[5:60] = (wrong[5:60] + 1) % 4
    counts = [confusion_matrix(test.labels, p) for p in (right, wrong)]
    return Kept(z, right, counts[0]), Kept(worse, wrong, counts[1])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(test items, teacher, student, their keepsakes.json, folder)."""
    folder, test = tmp_path_factory.mktemp("kept"), items()
    teacher, student = models(test)
    keep(folder / "teacher", test, teacher, [])
    keep(folder / "student", test, student, [3], teacher)
    said = [json.loads((folder / side / "keepsakes.json").read_text()) for side in ("teacher", "student")]
    return test, teacher, student, said, folder


def test_lost_images_are_those_that_only_the_teacher_gets_right(kept):
    test, _, student, (_, said), _ = kept
    lost = {f"made/{i:03d}" for i in range(10, 60)}
    shown = [said["tiles"]["ids"][t] for t in said["lost"]["tiles"]]
    assert said["lost"]["count"] == 50 and said["lost"]["won"] == 5 and said["lost"]["teacher_right"] == 110
    assert len(set(shown)) == keepsakes.NUM_LOST and set(shown) <= lost
    for t in said["lost"]["tiles"]:
        item = int(said["tiles"]["ids"][t][-3:])
        assert said["tiles"]["labels"][t] == test.labels[item] and said["tiles"]["predicted"][t] == student.predicted[item]
    labels = [said["tiles"]["labels"][t] for t in said["lost"]["tiles"]]
    assert labels == sorted(labels) and set(np.bincount(labels)) <= {5, 6, 7}  # an even part of each class


def test_neighbours_are_those_of_brute_force(kept):
    _, teacher, student, said, _ = kept
    queries = [int(said[0]["tiles"]["ids"][t][-3:]) for t in said[0]["queries"]]
    assert len(queries) == keepsakes.NUM_QUERIES
    for model, one in zip((teacher, student), said, strict=True):
        search = NearestNeighbors(n_neighbors=6, metric="cosine").fit(model.embeddings)
        wanted = search.kneighbors(model.embeddings[queries], return_distance=False)
        for query, row, near in zip(queries, one["neighbours"], wanted, strict=True):
            assert [int(one["tiles"]["ids"][t][-3:]) for t in row] == [i for i in near.tolist() if i != query][:5]


def test_thumbnails_are_their_items(kept):
    test, *_, said, folder = kept
    for one, side in zip(said, ("teacher", "student"), strict=True):
        sheet, place = np.asarray(Image.open(folder / side / "tiles.webp").convert("RGB"), dtype=int), one["sprite"]
        for t, name in enumerate(one["tiles"]["ids"]):
            row, column = divmod(t, place["columns"])
            middle = sheet[row * place["side"] + place["side"] // 2, column * place["side"] + place["side"] // 2]
            assert np.abs(middle - test.pixels[int(name[-3:]), 0, 0]).max() < 24  # WebP is lossy


def test_the_map_is_a_rotation_of_the_principal_components(kept):
    _, _, student, (own, said), _ = kept
    from sklearn.decomposition import PCA

    order = [int(i[-3:]) for i in own["map"]["shared"]["ids"]]
    unit = student.embeddings[order] / np.linalg.norm(student.embeddings[order], axis=1, keepdims=True)
    oracle = PCA(2).fit_transform(unit)
    drawn = np.array(said["map"]["pca"])
    turned = onto(drawn, oracle)
    assert np.abs(turned - drawn).max() < 2e-3  # three digits are kept
    assert np.mean(np.square(own["map"]["pca"])) == pytest.approx(1, abs=2e-3)
    assert said["map"]["predicted"] == student.predicted[order].tolist()


def test_a_map_is_the_same_twice_and_a_turned_copy_lies_on_its_teacher(kept):
    z = kept[1].embeddings
    first = map_of(z)
    assert all((first[k] == v).all() for k, v in map_of(z).items())
    assert np.abs(map_of(z[:, ::-1] * 3, z)["pca"] - first["pca"]).max() < 1e-5
    assert not np.allclose(map_of(kept[2].embeddings, z)["pca"], first["pca"], atol=0.1)


def test_few_items_and_one_dimension_do_not_break_it(tmp_path):
    assert plane(np.ones((3, 1))).tolist() == [[0, 0]] * 3
    assert neighbours(np.eye(3), np.array([0]), 5).shape == (1, 2)
    test = items(10, 2)
    keep(tmp_path / "few", test, Kept(np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)), [])
    said = json.loads((tmp_path / "few" / "keepsakes.json").read_text())
    assert "confusion" not in said and "lost" not in said and len(said["map"]["tsne"]) == 10


def test_large_images_of_several_sizes_are_made_small(tmp_path):
    small, large = items(12, 2), items(12, 2, (400, 300))
    test = Source("mixed", "test", small.ids, lambda i: (large if i % 2 else small).pixels[i], small.labels)
    place = keepsakes.write_sprite(tmp_path / "tiles.webp", test, np.arange(12), 80, 90)
    assert place == {"side": 80, "columns": 12, "rows": 1} and Image.open(tmp_path / "tiles.webp").size == (960, 80)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    from builders.tiny import finished_run

    run = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(finished_run(), run)
    return run


def test_a_study_keeps_them_of_each_arms_first_seed_summed_over_all(finished):
    made = sorted(p.parent.parent.name for p in finished.glob("trials/*/keepsakes/keepsakes.json"))
    assert len(made) == 2 and all(name.endswith("seed1") for name in made)
    assert len(list(finished.glob("references/*/keepsakes/map.webp"))) == 1
    trials = sorted(finished.glob("trials/*--cosine--S--seed*"))
    said = json.loads((trials[0] / "keepsakes" / "keepsakes.json").read_text())
    tables = [pd.read_parquet(t / "predictions.parquet") for t in trials]
    assert said["seeds"] == [1, 2]
    assert np.array_equal(said["confusion"],
                          sum(confusion_matrix(t["label"], t["paper|clean|"], labels=range(10)) for t in tables))
    assert sum(f.stat().st_size for f in finished.glob("*/*/keepsakes/*")) < 150_000


def test_a_resumed_run_gets_what_it_lacks_and_only_that(finished, monkeypatch):
    from builders.tiny import scratch
    from distillscope.study.run import load_study, run_study

    first, second = sorted(finished.glob("trials/*/keepsakes"))
    before = (second / "keepsakes.json").read_bytes()
    stamp = (second / "keepsakes.json").stat().st_mtime_ns
    shutil.rmtree(first)
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    run_study(load_study(finished).study, finished, resume=True, report=False)
    assert (first / "keepsakes.json").exists()
    assert (second / "keepsakes.json").read_bytes() == before and (second / "keepsakes.json").stat().st_mtime_ns == stamp
