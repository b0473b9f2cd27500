"""student.json, its weights and its card, damaged, foreign and hostile: one line, or a student that works."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from builders import refused
from distillscope.config.load import study_from
from distillscope.data.preprocess import Preprocess
from distillscope.data.splits import load_split
from distillscope.errors import UserError
from distillscope.students.card import model_card, training_rows
from distillscope.students.load import build_student, load_student, save_student, with_transform
from distillscope.students.networks import Transform

HOSTILE = [None, "", "x", -1, 0, 1.5, 10**6, 10**9, 10**12, 10**30, [], {}, [1], [1, 2, 3], True, "../../x", 1e308,
           {"a": {"b": []}}, "a\0b",
           "<b>\x1b[31m"]


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """Folders of three students: plain, of other weights, and with a transform."""
    root = tmp_path_factory.mktemp("students")
    for seed, name in enumerate(("plain", "other", "transformed")):
        torch.manual_seed(seed)
        student = build_student("paper_cnn", {"width": 1}, 8, Preprocess(size=16), "S", torch.device("cpu"))
        if name == "transformed":
            student = with_transform(student, Transform({"mean": torch.zeros(8), "matrix": torch.ones(8, 3),
                                                         "offset": torch.zeros(3)}, wave=True))
        save_student(student, root / name)
    return root


def works(folder) -> bool:
    """Whether a folder's student loads and embeds; what is wrong with it must be a `UserError`."""
    try:
        student = load_student(folder, "cpu")
    except UserError as error:
        assert "\x1b" not in str(error) and str(error).count("\n") == 0
        return False
    rows = student.encode(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["a", "b"])
    assert rows.shape == (2, student.dim)
    return True


def changed(source, folder, **values):
    shutil.copytree(source, folder, dirs_exist_ok=True)
    said = json.loads((folder / "student.json").read_text())
    (folder / "student.json").write_text(json.dumps({**said, **values}, allow_nan=True))
    return folder


def test_students_that_are_whole_load(students):
    assert all(works(students / name) for name in ("plain", "other", "transformed"))


@pytest.mark.parametrize("key", ["name", "settings", "embedding_dim", "preprocess", "label", "transform", "weights_hash",
                                 "seed", "card"])
def test_hostile_values(students, tmp_path, key):
    loaded = [value for value in [*HOSTILE, float("nan"), float("inf")]
              if works(changed(students / "plain", tmp_path, **{key: value}))]
    right = {"label": [v for v in HOSTILE if v is None or isinstance(v, str)], "seed": HOSTILE, "weights_hash": [""],
             "transform": [None], "card": [{}],
             "settings": [{}]}  # the default width is the one that was saved
    assert [v for v in loaded if v not in right.get(key, [])] == []


@pytest.mark.parametrize("key", ["size", "mean", "std", "interpolation", "crop_fraction", "unknown"])
def test_hostile_preprocessing(students, tmp_path, key):
    said = json.loads((students / "plain" / "student.json").read_text())["preprocess"]
    loaded = [v for v in HOSTILE if works(changed(students / "plain", tmp_path, preprocess={**said, key: v}))]
    right = {"mean": [[1, 2, 3]], "std": [[1, 2, 3]], "crop_fraction": [1.5], "size": []}
    assert loaded == right.get(key, [])


def test_hostile_transforms(students, tmp_path):
    said = json.loads((students / "transformed" / "student.json").read_text())["transform"]
    wrong = [*HOSTILE, *({**said, key: v} for key in (*said, "more") for v in HOSTILE if v is not True),
             *({**said, "shapes": {**said["shapes"], key: v}} for key in ("mean", "matrix", "offset", "more") for v in HOSTILE)]
    assert not [v for v in wrong if works(changed(students / "transformed", tmp_path, transform=v))]


@pytest.mark.parametrize("settings",
                         [{"width": 2}, {"width": 10**8}, {"width": "x"}, {"depth": 1}, {"width": 1, "blur_pool": 5}])
def test_settings_of_another_network(students, tmp_path, settings):
    with pytest.raises(UserError):
        load_student(changed(students / "plain", tmp_path, settings=settings), "cpu")


@pytest.mark.parametrize("model", ["hf-hub:evil/model", "local-dir:/etc", "../x", "vit_giant_patch14_dinov2"])
def test_a_model_that_the_weights_are_not_of_is_never_built(students, tmp_path, model, monkeypatch):
    monkeypatch.setattr("distillscope.students.load.build_student", None)
    with pytest.raises(UserError):
        load_student(changed(students / "plain", tmp_path, name="timm", settings={"model": model, "pretrained": True}), "cpu")


def test_weights_of_another_student_are_refused(students, tmp_path):
    shutil.copytree(students / "plain", tmp_path, dirs_exist_ok=True)
    shutil.copy(students / "other" / "weights.safetensors", tmp_path)
    with pytest.raises(UserError,
                       match=r"weights.safetensors: expected the weights that student.json was written with .*, got others"):
        load_student(tmp_path, "cpu")


def test_a_student_of_before_weights_were_hashed_loads_and_says_so(students, tmp_path, capsys):
    changed(students / "plain", tmp_path, weights_hash="")
    assert works(tmp_path)
    assert "has no weights_hash" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"5", b"[" * 100_000, b"\xff\xfe", b"{}", b'{"name": NaN}'])
def test_a_description_that_is_none(students, tmp_path, content):
    shutil.copytree(students / "plain", tmp_path, dirs_exist_ok=True)
    (tmp_path / "student.json").write_bytes(content)
    with pytest.raises(UserError, match="student.json"):
        load_student(tmp_path, "cpu")


@pytest.mark.parametrize("damage", ["cut", "text", "gone", "folder"])
def test_weights_that_are_none(students, tmp_path, damage):
    shutil.copytree(students / "plain", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "weights.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(whole[:1000] if damage == "cut" else b"text")
    with pytest.raises(UserError, match="weights.safetensors"):
        load_student(tmp_path, "cpu")


NASTY = "x`$(id)` <img src=x onerror=alert(1)> | a\n---\nlicense: evil\n---\n| b | c |"


@pytest.fixture(scope="module")
def card():
    study = study_from({"name": "x", "data": ["digits"], "teacher": [{"name": "efficientnet_lite0", "label": NASTY}],
                        "students": ["paper_cnn"],
                        "arms": [{"name": "a", "view": {"name": "noise", "sigma": 0.1}, "view_target": "clean"}],
                        "target": {"name": "pca", "dim": 4},
                        "training": {"epochs": 1, "schedule": "cosine"}})
    student = build_student("paper_cnn", {}, 8, Preprocess(size=16), NASTY, torch.device("cpu"))
    splits = SimpleNamespace(title=NASTY, train=range(90), validation=range(10), whole_train=SimpleNamespace(note="1 left out"))
    last = {"n": 10, "cosine": 0.5, "target_rank": 3.0, "effective_rank": 2.0, "knn_accuracy": 0.9}
    student.described |= {"teacher": NASTY, "card": training_rows(study, splits, [last])}
    return model_card(student, f"/students/a b{NASTY}", command=f"distillscope distill --data '{NASTY}'")


def test_names_make_no_markdown(card):
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other" and card.count("\n---\n") == 1
    assert "<img" not in "".join(line for line in card.partition("```python")[0].splitlines()
                                 if not line.startswith("| command"))
    assert all(line.count("|") - line.count("\\|") == 3 for line in card.splitlines() if line.startswith("|"))


def test_it_says_how_to_load_it_and_how_it_was_trained(card):
    assert "load_student('/students/a b" in card or 'load_student("/students/a b' in card
    assert "| target | pca, dim 4 |" in card
    assert "| view | noise, sigma 0.1; the teacher's embedding of the clean image |" in card
    assert "| training | 1 epoch, batch 64, adam, lr 0.001 (cosine)" in card


DIM, SIZE = 8, 16


@pytest.fixture(scope="module")
def student():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build_student("paper_cnn", {"width": 1}, DIM, Preprocess(SIZE), "S", torch.device("cpu"))
    made.module.eval()
    return made


@pytest.fixture
def folder(tmp_path):
    """Five images, one a folder deeper, and a text."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    (tmp_path / "b").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / ("b" if i == 4 else "") / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path, pixels


def test_every_kind_of_image_gives_the_same_rows(student, folder):
    path, pixels = folder
    paths = [path / f"{i}.png" for i in range(4)] + [path / "b" / "4.png"]
    wanted = student.encode(pixels)
    opened = [Image.open(p) for p in paths]
    for given in (pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2), paths, list(map(str, paths)), opened,
                  pd.Series(map(str, paths)), pd.DataFrame({"p": paths})["p"], path, str(path)):
        found = student.embed(given, batch_size=2)
        assert found.shape == (5, DIM) and found.dtype == np.float32
        assert np.allclose(found, wanted, atol=1e-4)
    floats = student.embed(pixels / np.float32(255))  # resized without rounding to whole levels
    assert np.allclose(floats, wanted, atol=0.01)
    for one in (paths[0], pixels[0], opened[0]):
        assert np.allclose(student.embed(one), wanted[:1], atol=1e-4)
    assert student.embed([]).shape == (0, DIM)


def test_a_student_is_a_step_of_a_pipeline(student, folder):
    _, pixels = folder
    labels = [0, 1, 0, 1, 0]
    pipeline = make_pipeline(student, LogisticRegression()).fit(pixels, labels)
    assert pipeline.predict(pixels).shape == (5,) and clone(student) is student
    assert pipeline[:-1].get_feature_names_out().tolist() == [f"embedding_{i}" for i in range(DIM)]
    assert clone(pipeline).fit(list(pixels), labels).score(list(pixels), labels) >= 0.6


def test_what_is_no_image_is_refused_by_its_name(student, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with refused(where="a.png"):
        student.embed([tmp_path / "a.png"])
    (tmp_path / "a.png").unlink()
    with refused(where=str(tmp_path), got="none"):
        student.embed(tmp_path)
    with refused(got="a whole table"):
        student.embed(pd.DataFrame({"path": ["a.png"]}))


def test_a_folder_given_to_embed_is_the_files_that_commands_read_of_it(student, tmp_path):
    """Copies that systems keep of images were embedded too, and linked folders were not."""
    for i, name in enumerate(("photos/a/0.png", "photos/a/1.png", "photos/a/.ipynb_checkpoints/1-checkpoint.png",
                              "photos/.thumb.png", "photos/__MACOSX/a/._0.png", "elsewhere/2.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(tmp_path / name)
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "elsewhere")
    read = load_split("image_folder", {"path": str(tmp_path / "photos")}, ".")
    assert len(read) == 3 and np.allclose(student.embed(tmp_path / "photos"), student.embed(read), atol=1e-5)
