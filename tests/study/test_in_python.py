"""`distillscope.distill`: whatever a caller holds as teacher, student and images gives the student that the command gives."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torchvision import transforms as T

import distillscope
from builders import refused
from builders.tiny import scratch
from distillscope.data.given import given_images
from distillscope.students.load import load_student

COUNT, SIZE, DIM = 48, 12, 6
QUICK = {"epochs": 1, "batch_size": 16, "device": "cpu"}
SMALL = {"image_size": SIZE, **QUICK}


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def files(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    return sorted(folder.glob("*.png"))


class Teacher(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = torch.nn.Conv2d(3, DIM, 3), torch.nn.BatchNorm2d(DIM)

    def forward(self, images):
        return self.norm(self.conv(images)).mean((2, 3))


class Network(torch.nn.Module):
    def __init__(self, dim=DIM):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, dim, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    def forward(self, images):
        return self.layers(images)


def colours(images):
    """A function of Pillow images: mean and spread of each channel."""
    arrays = [np.asarray(image, np.float32) / 255 for image in images]
    return np.stack([np.concatenate([a.mean((0, 1)), a.std((0, 1))]) for a in arrays])


def weights(student):
    return {k: v.numpy() for k, v in student.module.state_dict().items()}


class Pairs(torch.utils.data.Dataset):
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return T.ToTensor()(Image.fromarray(self.pixels[index])), 7


@pytest.mark.parametrize("form", ["nchw", "tensor", "pillow", "floats", "pairs", "rows", "generator"])
def test_images_in_any_form_are_the_same_images(form, pixels):
    given = {"nchw": lambda: pixels.transpose(0, 3, 1, 2), "tensor": lambda: torch.from_numpy(pixels).permute(0, 3, 1, 2),
             "pillow": lambda: [Image.fromarray(p) for p in pixels], "floats": lambda: pixels.astype(np.float32) / 255,
             "pairs": lambda: Pairs(pixels), "rows": lambda: [{"image": Image.fromarray(p), "label": 1} for p in pixels],
             "generator": lambda: (Image.fromarray(p) for p in pixels)}[form]()
    source = given_images(given)
    assert len(source) == COUNT and source.ids.tolist() == [str(i) for i in range(COUNT)] and source.labels is None
    assert all((source.image(i) == pixels[i]).all() for i in (0, 5, COUNT - 1))


def test_paths_and_columns_are_named_by_their_paths(files, pixels):
    for given in (files, [str(f) for f in files], pd.DataFrame({"path": [str(f) for f in files]})["path"]):
        source = given_images(given)
        assert source.ids.tolist() == [str(f) for f in files] and (source.image(3) == pixels[3]).all()


@pytest.mark.parametrize(("given", "got", "advice"), [
    (pd.DataFrame({"path": ["a.png"]}), "a whole table", "Name one column"), (np.zeros((4, 4)), "shape (4, 4)", "shape"),
    (np.zeros((2, 4, 4, 3), np.int32), "int32", "uint8"), (np.full((2, 4, 4, 3), 200.0), "floats from 200", "255"),
    ([], "none", ""), (3, "int", "Convert"), ({"a": 1}, "dict", "list"),
])
def test_what_is_no_images_is_one_line(given, got, advice):
    with refused(got=got, advice=advice):
        given_images(given)


def test_ready_embeddings_and_arrays_give_a_student_that_encodes(pixels, rows, tmp_path):
    student = distillscope.distill(rows, "paper_cnn", pixels, out=tmp_path / "student", **SMALL)
    found = student.encode(pixels[:3])
    assert found.shape == (3, DIM) and np.isfinite(found).all() and not student.module.training
    again = load_student(tmp_path / "student", "cpu")
    assert (again.encode(pixels[:3]) == found).all() and again.weights_hash == student.weights_hash
    card = (tmp_path / "student" / "README.md").read_text()
    assert "robust, but for its training.epochs, training.batch_size" in card and "images, 44 for training, 4 held out" in card
    unkept = distillscope.distill(rows, "paper_cnn", pixels, **SMALL)
    assert all((weights(unkept)[k] == v).all() for k, v in weights(student).items())
    same = distillscope.distill(rows, "paper_cnn", pixels, out=tmp_path / "student", resume=True, **SMALL)
    assert same.weights_hash == student.weights_hash
    with refused(where="fingerprint.teacher's weights"):
        distillscope.distill(rows + 1, "paper_cnn", pixels, out=tmp_path / "student", resume=True, **SMALL)


def test_a_named_teacher_and_student_give_what_the_command_gives(tmp_path):
    from distillscope.config.recipe import one_student
    from distillscope.study.student import distill_one

    options = {"limit": 60, "batch_size": 16, "epochs": 1}
    student = distillscope.distill("efficientnet_lite0", "paper_cnn", "digits", image_size=16, dim=8, recipe="paper",
                                   device="cpu", **options)
    study = one_student("s", "efficientnet_lite0", "digits", recipe="paper", dim=8, overrides=[
        "students.0.image_size=16", "limit=60", "training.batch_size=16", "training.epochs=1"])
    folder = distill_one(study, tmp_path / "s", device="cpu")
    assert student.weights_hash == load_student(folder, "cpu").weights_hash and student.dim == 8


def test_a_function_of_pillow_images_is_a_teacher_and_each_image_is_embedded_once(files):
    seen = []

    def teach(images):
        seen.extend(images)
        return colours(images)

    student = distillscope.distill(teach, "paper_cnn", files, recipe="paper", **SMALL)
    first = len(seen)
    assert student.dim == 6 and seen[0].mode == "RGB" and first <= COUNT + 8
    distillscope.distill(teach, "paper_cnn", files, recipe="paper", **SMALL)
    assert len(seen) - first <= 8, "only the probe: the rest is in the cache"


def test_a_module_is_a_teacher_left_as_it_was_by_any_preprocessing(pixels):
    teacher = Teacher().train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    half = T.Compose([T.ToTensor(), T.Normalize((0.5,) * 3, (0.5,) * 3)])
    sized = {"size": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    students = [distillscope.distill(teacher, "paper_cnn", pixels, teacher_preprocess=p, recipe="paper", **SMALL)
                for p in (half, sized)]
    teacher.preprocess = half
    students.append(distillscope.distill(teacher, "paper_cnn", pixels, recipe="paper", **SMALL))
    one, two, three = map(weights, students)
    assert all(np.allclose(v, two[k], atol=1e-5) and (v == three[k]).all() for k, v in one.items())
    assert teacher.training and all(p.requires_grad for p in teacher.parameters())
    assert all((v == before[k]).all() for k, v in teacher.state_dict().items())


def test_views_reach_a_given_teacher(pixels):
    recipe = {"objective": "cosine", "view": {"name": "crop_flip", "padding": 1}}
    sized = {"size": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert distillscope.distill(Teacher(), "paper_cnn", pixels, teacher_preprocess=sized, recipe=recipe, **SMALL).dim == DIM
    assert distillscope.distill(colours, "paper_cnn", pixels, recipe=recipe, **SMALL).dim == 6


def test_a_fine_tuned_model_of_timm_teaches_without_its_head(pixels, capsys):
    teacher = timm.create_model("test_resnet", num_classes=5)
    student = distillscope.distill(teacher, "paper_cnn", pixels[:20], recipe="paper", **{**SMALL, "batch_size": 8})
    assert student.dim == teacher.num_features and teacher.num_classes == 5
    assert "its head of 5 outputs is left out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("dim", [DIM, 4])
def test_an_own_network_is_copied_projected_and_loaded_with_its_code(dim, pixels, rows, tmp_path):
    network = Network(dim)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    steps = T.Compose([T.Resize(SIZE), T.CenterCrop(SIZE), T.ToTensor(), T.Normalize((0.5,) * 3, (0.25,) * 3)])
    student = distillscope.distill(rows, network, pixels, student_preprocess=steps, out=tmp_path / "s", **QUICK)
    assert all((v == before[k]).all() for k, v in network.state_dict().items())
    assert student.dim == DIM and (student.preprocess.size, student.preprocess.std) == (SIZE, (0.25,) * 3)
    assert len(list(student.module.parameters())) == len(list(network.parameters())) + 2 * (dim != DIM)
    with refused(where="student", advice="module=Network()"):
        load_student(tmp_path / "s")
    again = load_student(tmp_path / "s", "cpu", module=Network(dim))
    assert (again.encode(pixels[:2]) == student.encode(pixels[:2])).all()
    assert "module=Network()" in (tmp_path / "s" / "README.md").read_text()


@pytest.mark.parametrize(("steps", "mode", "said"), [
    ([T.Resize((SIZE, SIZE))], "squash", f"squashed to {SIZE} x {SIZE} px"),
    ([T.Resize((2 * SIZE, 2 * SIZE)), T.CenterCrop(SIZE)], "squash", f"squashed to {2 * SIZE} x {2 * SIZE} px, centre crop"),
    ([T.Resize(2 * SIZE), T.CenterCrop(SIZE)], "shortest", f"resized by their shorter side to {2 * SIZE} px, centre crop of"),
    ([T.Resize(SIZE)], "shortest", f"the transform has no CenterCrop({SIZE})")])
def test_an_own_network_sees_photos_as_its_transform_shows_them_and_it_is_said(steps, mode, said, rows, tmp_path, capsys):
    transform = T.Compose([*steps, T.ToTensor(), T.Normalize((0.5,) * 3, (0.25,) * 3)])
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)).resize((61, 40)) for _ in rows]
    student = distillscope.distill(rows, Network(), photos, student_preprocess=transform, out=tmp_path / "s", **QUICK)
    assert student.preprocess.resize_mode == mode and said in capsys.readouterr().err
    again = load_student(tmp_path / "s", "cpu", module=Network())
    seen = again.preprocess(torch.from_numpy(np.array(photos[0])).permute(2, 0, 1)[None])[0]
    theirs = T.CenterCrop(SIZE)(transform(photos[0]))
    assert float((seen - theirs).abs().max()) * 0.25 * 255 < 2.5
    assert f"'resize_mode': '{mode}'" in (tmp_path / "s" / "README.md").read_text() or mode == "shortest"


@pytest.mark.parametrize("step", [T.Resize(SIZE, max_size=SIZE + 1), T.Resize((SIZE, SIZE + 2))])
def test_a_resize_that_cannot_be_stored_is_refused(step, pixels, rows):
    steps = T.Compose([step, T.CenterCrop(SIZE), T.ToTensor()])
    with refused(where="student Network preprocess", got="Resize"):
        distillscope.distill(rows, Network(), pixels, student_preprocess=steps, **QUICK)


def test_images_of_several_sizes_without_labels_train_under_noise(rows):
    rng = np.random.default_rng(2)
    photos = [Image.fromarray(rng.integers(0, 256, (10 + i % 3, 12, 3), dtype=np.uint8)) for i in range(COUNT)]
    assert np.isfinite(distillscope.distill(rows, "paper_cnn", photos, **SMALL).encode(photos[:4])).all()


@pytest.mark.parametrize("recipe", ["robust", "paper"])
def test_a_handful_of_images_trains_or_says_what_is_missing(recipe, pixels, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no mean of nothing
        student = distillscope.distill(rows[:4], "paper_cnn", pixels[:4], recipe=recipe, **{**SMALL, "batch_size": 2})
    assert np.isfinite(student.encode(pixels[:1])).all()
    with refused(where="data images/train", expected="a batch of 16", got="4", advice="training.batch_size"):
        distillscope.distill(rows[:4], "paper_cnn", pixels[:4], recipe=recipe, **SMALL)


@pytest.mark.parametrize(("change", "parts"), [
    ({"teacher": np.zeros((5, DIM))}, {"where": "teacher", "expected": f"({COUNT}, d)", "got": "(5, 6)"}),
    ({"teacher": np.full((COUNT, DIM), np.nan)}, {"where": "teacher", "got": "NaN"}),
    ({"teacher": lambda images: np.zeros(3)}, {"expected": "(8, d)", "got": "shape (3,)"}),
    ({"teacher": 3}, {"where": "teacher", "got": "int"}),
    ({"teacher": Teacher()}, {"where": "teacher Teacher preprocess", "got": "none", "advice": "teacher_preprocess="}),
    ({"teacher": "efficientnet"}, {"where": "teacher", "advice": "efficientnet_lite0"}),
    ({"student": 3}, {"where": "student", "got": "int"}),
    ({"student": Network()}, {"where": "student Network preprocess", "got": "none"}),
    ({"student": Network().requires_grad_(False)}, {"expected": "parameters to train"}),
    ({"student": torch.nn.Conv2d(3, 4, 3), "image_size": SIZE}, {"expected": "(b, k)", "got": "shape (2, 4, 10, 10)"}),
    ({"student_preprocess": T.Compose([T.RandomCrop(4)])}, {"where": "student_preprocess"}),
    ({"student": Network(), "student_preprocess": T.Compose([T.RandomCrop(4), T.ToTensor()])}, {"got": "RandomCrop"}),
    ({"student": Network(), "student_preprocess": {"sise": 4}}, {"got": "sise"}),
    ({"student": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE**2, 4)), "image_size": SIZE},
     {"where": "training.optimizer", "got": "muon", "advice": "training.optimizer=adam"}),
    ({"dim": 99}, {"where": "target.dim", "expected": f"teacher's {DIM}", "got": "99"}),
    ({"recipe": {"objective": "cross_entropy"}}, {"expected": "data with labels", "got": "images/train without"}),
    ({"recipe": {"students": ["x"]}}, {"where": "recipe students"}),
    ({"settings": {"trainin.epochs": 2}}, {"advice": "training"}),
    ({"settings": {"view.sigma": object()}}, {"where": "view.sigma", "got": "object"}),
    ({"recipe": 3}, {"where": "recipe", "got": "int"}),
    ({"student_preprocess": {"size": SIZE, "crop_fraction": 0.9}}, {"where": "student_preprocess", "got": "0.9"}),
    ({"student": Network(), "student_preprocess": {"size": "a"}}, {"where": "student Network preprocess.size", "got": "'a'"}),
    ({"teacher": Teacher(), "teacher_preprocess": {"size": SIZE, "mean": 0.5}}, {"where": "preprocess.mean", "got": "0.5"}),
    ({"teacher": Teacher(), "teacher_preprocess": {"size": SIZE, "std": (1, 0, 1)}}, {"where": "preprocess.std"}),
    ({"teacher": Teacher(), "teacher_preprocess": {"size": SIZE, "interpolation": "best"}}, {"got": "best"}),
    ({"teacher": torch.nn.Conv2d(3, 4, 3), "teacher_preprocess": {"size": SIZE}}, {"expected": "(b, d)", "got": "4, 10, 10)"}),
    ({"teacher": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 4)), "teacher_preprocess": {"size": SIZE}},
     {"where": "teacher Sequential", "expected": f"(b, 3, {SIZE}, {SIZE})", "got": "RuntimeError"}),
])
def test_what_does_not_fit_is_one_line(change, parts, pixels, rows):
    given = {"teacher": rows, "student": "paper_cnn", "images": pixels, **QUICK, **change}
    with refused(**parts):
        distillscope.distill(**given)


def test_numbers_of_numpy_are_numbers(pixels, rows, tmp_path):
    (tmp_path / "mine.yaml").write_text("objective: cosine")
    seen = {"size": np.int64(SIZE), "mean": np.full(3, 0.5), "std": np.full(3, 0.25, np.float32)}
    student = distillscope.distill(rows, Network(), pixels, recipe=tmp_path / "mine.yaml", student_preprocess=seen,
                                   **{**SMALL, "epochs": np.int64(1)}, out=tmp_path / "student")
    assert student.preprocess.mean == (0.5, 0.5, 0.5)
    again = distillscope.load_student(tmp_path / "student", module=Network())
    assert np.array_equal(again.encode(pixels[:2]), student.encode(pixels[:2]))
