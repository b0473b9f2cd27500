"""A study's stresses and remedies, the same for teacher and students; and what it keeps for its page: made once, and right."""

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

from builders import refused
from builders.browser import undrawn
from builders.tiny import scratch, tiny_study
from distillscope import load_study
from distillscope.data.source import Source
from distillscope.draws import keyed_rng
from distillscope.results.robustness import against_teacher
from distillscope.study import keepsakes
from distillscope.study.keepsakes import Kept, keep, map_of, neighbours, onto, plane
from distillscope.study.plan import plan_study
from distillscope.study.run import run_study
from distillscope.teachers.inventory import list_entries

STRESSES = [
    {"name": "band_noise", "bands": [[0, 0.5], [0.5, 1]], "sigmas": [0.2], "items": 30},
    {"name": "corruptions", "names": ["contrast", "fog"], "severities": [1, 5], "items": 30},
    {"name": "fourier", "norm": 1, "step": 4, "items": 20},
    {"name": "gradient", "items": 16},
    {"name": "latency", "repeats": 3},
    {"name": "noise_probe", "sigmas": [0.2], "train_items": 60, "items": 30},
]


def stressed_study(**changes):
    values = {"seeds": [1], "noise": {"sigmas": [], "draws": 1}, "stresses": STRESSES,
              "remedies": [{"name": "bn", "sigma": 0.3}],
              "arms": [{"name": "noisy", "view": {"name": "noise", "sigma": 0.3}, "view_target": "clean"}]}
    return tiny_study(**{**values, **changes})


@pytest.fixture(scope="module")
def run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        with undrawn():
            return run_study(stressed_study(), scratch() / "stressed", jobs=1)


def conditions(rows: pd.DataFrame) -> set[str]:
    return set(rows[rows["measure"].str.startswith("paper.probe") & rows["measure"].str.endswith("accuracy")]["condition"])


def test_teacher_student_and_remedied_student_meet_the_same_conditions(run):
    results = run.results
    teacher, student = results[results["student"] == "teacher"], results[results["arm"] == "noisy"]
    assert conditions(teacher) == conditions(student) == conditions(results[results["arm"] == "noisy+bn"])
    assert {"band=0-0.5/0.2", "band=none", "corruption=fog/5", "corruption=none", "clean"} <= conditions(teacher)
    shared = results[results["condition"].str.match("band|corruption")]
    assert (shared["n"] == 30).all()
    for measure in ("gradient.student.frequency", "capacity.latency_ms", "noise_probe.paper.student.accuracy",
                    "paper.probe.student.corruption_error", "paper.probe.student.fourier_error"):
        assert measure in set(student["measure"]), measure
    assert not results.duplicated(["split", "student", "arm", "seed", "target", "measure", "condition", "draw"]).any()


def test_curves_maps_and_the_remedied_weights_are_kept(run):
    trial, = (run.path / "trials").iterdir()
    assert "stress.gradient.student" in json.loads((trial / "curves.json").read_text())
    assert (trial / "stress" / "fourier.paper.probe.npy").is_file()
    assert (trial / "remedies" / "bn" / "stress" / "fourier.paper.probe.npy").is_file()
    from distillscope.students.load import load_student

    assert load_student(trial / "remedies" / "bn").dim == load_student(trial).dim
    reference, = (run.path / "references").iterdir()
    assert "stress.gradient.teacher" in json.loads((reference / "curves.json").read_text())
    assert any("students only" in why for why in json.loads((reference / "complete.json").read_text())["skipped"])


def test_units_stand_in_the_provenance_and_the_report_is_written(run):
    record = json.loads((run.path / "provenance.json").read_text())["conditions"]
    assert record["band=0-0.5/0.2"]["sigma_normalised"] == 0.2 and record["band=0-0.5/0.2"]["sigma_255"] > 0
    assert "noisy+bn" in (run.path / "report.html").read_text()


def test_retention_against_the_teacher(run):
    table = against_teacher(run.results)
    assert set(table["arm"]) == {"noisy", "noisy+bn"}
    assert {"corruption=fog/5", "band=0.5-1/0.2", "corruption=mean"} <= set(table["condition"])


def test_the_plan_knows_of_every_image_and_finds_it_cached(run, untimed, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    plan = plan_study(run.study, scratch() / "nowhere", jobs=1)
    # 200 train and 60 test; two bands; four corruptions; noise probe's test and train; the clean parts once more each.
    assert plan.teacher_forwards == 0
    assert plan.teacher_cached == 260 + 2 * 30 + 4 * 30 + (30 + 60) + (30 + 30 + 30 + 60)
    assert {"noise", "corruption", "band noise"} <= {(e["perturbation"] or {}).get("kind") for e in list_entries()}


def test_what_stresses_need_is_said_before_the_teacher_runs(tmp_path):
    for split, count in (("train", 60), ("test", 20)):
        (tmp_path / "bare" / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12, 3),
                                                              dtype=np.uint8)).save(tmp_path / "bare" / split / f"{i}.png")
    with refused(where="stresses.band_noise", got="none"):
        run_study(stressed_study(data=[str(tmp_path / "bare")], validation=10), tmp_path / "a", jobs=1)
    with refused(where="corruptions.severities", got="6"):
        run_study(stressed_study(stresses=[{"name": "corruptions", "severities": [6]}]), tmp_path / "b", jobs=1)
    assert not list((tmp_path / "b").glob("references/*"))


def test_ready_made_embeddings_are_not_stressed(tmp_path, monkeypatch):
    from distillscope.study.prepared import load_data

    study = stressed_study(stresses=[{"name": "gradient", "items": 10}], remedies=[], arms=[{"name": "cosine"}],
                           training={"epochs": 1})
    splits = load_data(study, study.data[0])
    folder = tmp_path / "ready"
    folder.mkdir()
    for source in (splits.whole_train, splits.test):
        np.save(folder / f"{source.split}.npy", np.random.default_rng(0).normal(size=(len(source), 12)).astype(np.float32))
        (folder / f"{source.split}_ids.txt").write_text("\n".join(source.ids))
    study = study.model_copy(update={"teacher": (type(study.teacher[0])(name="embeddings", path=str(folder)),)})
    done = run_study(study, tmp_path / "run", jobs=1, report=False)
    reference, = (done.path / "references").glob("*/complete.json")
    assert "stresses: ready-made embeddings cannot be made of changed images" in reference.read_text()
    assert "gradient.student.energy" in set(load_study(done.path).results["measure"])


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
    assert np.abs(map_of(z[:, ::-1] * 3, first)["pca"] - first["pca"]).max() < 1e-5
    assert not np.allclose(map_of(kept[2].embeddings, first)["pca"], first["pca"], atol=0.1)


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
