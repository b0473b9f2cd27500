"""Remedies: noise as a view with a clean or a noisy target, batch norms re-estimated, blur before pooling; all draws paired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders import refused
from builders.tiny import scratch, tiny_study, tiny_values
from builders.training import make_source, make_student
from distillscope.config.load import study_from
from distillscope.config.parts import CLIP_STD
from distillscope.config.study import Arm
from distillscope.data.preprocess import Preprocess
from distillscope.data.views import View
from distillscope.draws import keyed_rngs
from distillscope.errors import UserError
from distillscope.facts import ViewFacts
from distillscope.registry import remedies, targets, views
from distillscope.remedies.after_training import bn_reestimated, posthoc
from distillscope.students.load import build_student, load_student, save_student
from distillscope.students.networks import Transform, capacity, paper_cnn
from distillscope.study.plan import plan_study
from distillscope.study.prepared import Prepared, embedded_views, view_of
from distillscope.study.run import run_study
from distillscope.study.trial import training_set
from distillscope.targets.transforms import Target, posthoc_twin
from distillscope.training.streams import KeyedStreams

GREY = torch.full((400, 3, 8, 8), 128, dtype=torch.uint8)
IDS = [f"i{i}" for i in range(400)]


def noise(seed=1, epoch=0, **settings):
    return View("noise", settings, seed, epoch)


def test_generators_of_items_hang_on_the_key_and_the_item_alone():
    def draws(items, *key):
        return [rng.standard_normal(3).tolist() for rng in keyed_rngs(items, *key)]

    assert draws("abc", 1, "x") == draws("cba", 1, "x")[::-1] and draws("abc", 1, "x")[1:2] == draws("b", 1, "x")
    assert draws("a", 1, "x") != draws("a", 2, "x") and draws("a", 1) != draws("b", 1)
    halves = [rng.integers(0, 2**31, dtype=np.uint32) for rng in keyed_rngs("aa", 1)]  # no half of a 64-bit draw is left over
    assert halves[0] == halves[1]
    many = np.array([rng.standard_normal(50) for rng in keyed_rngs(range(400), 0)])
    assert abs(np.corrcoef(many)[np.triu_indices(400, 1)]).mean() == pytest.approx(np.sqrt(2 / np.pi / 50), rel=0.05)


def test_the_noise_view_has_the_spread_that_it_states():
    fixed = noise(sigma=0.2, fixed=True, clip=False)(GREY, IDS) - 128 / 255
    assert fixed.std(dim=(0, 2, 3)).numpy() == pytest.approx(0.2 * np.array(CLIP_STD), rel=0.02)
    drawn = (noise(sigma=0.2, clip=False, unit="pixel")(GREY, IDS) - 128 / 255).std(dim=(1, 2, 3))
    assert drawn.max() < 0.24 and drawn.mean() == pytest.approx(0.1, rel=0.06)  # uniform in 0 to 0.2
    at_input = noise(sigma=0.2, fixed=True, where="input")(torch.zeros(400, 3, 8, 8), IDS)
    assert at_input.std() == pytest.approx(0.2, rel=0.01)
    assert noise(sigma=3.0)(GREY, IDS).min() == 0 and noise(sigma=3.0)(GREY, IDS).max() == 1
    assert noise(where="input").where == "input" and noise().where == View("crop_flip", {}, 1, 0).where == "source"


def test_the_noise_view_hangs_on_seed_epoch_and_item_alone():
    view = noise(sigma=0.3)
    whole = view(GREY, IDS)
    assert torch.equal(whole[50:60], view(GREY[50:60], IDS[50:60]))
    assert torch.equal(whole.flip(0), view(GREY.flip(0), IDS[::-1]))
    assert not torch.equal(whole, noise(2, sigma=0.3)(GREY, IDS)) and not torch.equal(whole, noise(1, 1, sigma=0.3)(GREY, IDS))
    small, large = (noise(sigma=s, clip=False)(GREY, IDS) - 128 / 255 for s in (0.1, 0.3))
    assert torch.allclose(3 * small, large, atol=1e-6)  # arms of other strengths share their draws
    fixed, plain = noise(sigma=0.3, fixed=True,
                         clip=False)(GREY, IDS) - 128 / 255, noise(sigma=0.3, clip=False)(GREY, IDS) - 128 / 255
    scale = (plain.flatten(1) * fixed.flatten(1)).sum(1) / fixed.flatten(1).square().sum(1)
    assert torch.allclose(fixed * scale.view(-1, 1, 1, 1), plain, atol=1e-6) and 0 <= scale.min() < 0.02
    assert 0.98 < scale.max() < 1
    assert noise(fixed=True).describe()["revision"] == 2
    assert "revision" not in view.describe()  # what was stored of fixed ones is void
    mixed = view([GREY[0], GREY[1, :, :6]], IDS[:2])
    assert torch.equal(mixed[0], whole[0]) and mixed[1].shape == (3, 6, 8)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_a_noise_view_of_no_strength_is_refused(sigma):
    with refused(where="view.sigma"):
        noise(sigma=sigma)(GREY[:1], IDS[:1])


def test_an_arm_names_the_target_of_its_view():
    study = tiny_study(arms=[
        {"name": "cosine"}, {"name": "clean", "view": {"name": "noise", "sigma": 0.3}, "view_target": "clean"},
        {"name": "fresh", "view": {"name": "noise", "sigma": 0.3}},
        {"name": "bank", "view": {"name": "noise", "sigma": 0.3}, "view_bank": 2}])
    by_name = {a.name: a for a in study.arms}
    # Two versions of each image in all, whatever the seeds and epochs; fresh ones for each otherwise; none for clean targets.
    counts = {name: len(embedded_views(study, [arm])) for name, arm in by_name.items()}
    assert counts == {"cosine": 0, "clean": 0, "fresh": 4, "bank": 2}
    bank = by_name["bank"]
    assert view_of(bank, 1, 0) == view_of(bank, 2, 2) != view_of(bank, 1, 1)
    assert view_of(bank, 1, "0 second").seed == 1  # the second of two views needs no target


def test_what_the_student_is_shown_with_which_target(tmp_path):
    for name in ("train", "other"):
        np.save(tmp_path / f"{name}.npy", np.full((4, 2), name == "train", np.float32))

    class Splits:
        train = "images"

    clean = training_set(Arm(name="a", view={"name": "noise"}, view_target="clean"), 1, Splits, Prepared(tmp_path, "none"))
    assert clean.targets(0).all() and clean.view(3) == View("noise", {}, 1, 3)
    plain = training_set(Arm(name="a"), 1, Splits, Prepared(tmp_path, "none"))
    assert plain.targets(0).all() and plain.view(3) is None


@pytest.mark.parametrize("changes", [{"view_target": "clean"}, {"view_bank": 2}])
def test_a_target_of_no_view_is_refused(changes):
    with refused(where="arms.a.view", got="none"):
        study_from(tiny_values(arms=[{"name": "a", **changes}]))


@pytest.mark.parametrize(("changes", "message"), [
    ({"stresses": ["corruption"]},
     "stresses.corruption.name: expected a known stress, got 'corruption'. Did you mean 'corruptions'"),
    ({"stresses": [{"name": "fourier", "norm": "x"}]}, "stresses.fourier.norm: expected float, got 'x'"),
    ({"remedies": ["batchnorm"]}, "remedies.batchnorm.name: expected a known remedy, got 'batchnorm'"),
    ({"remedies": ["bn", "bn"]}, "remedies' labels: expected each name once"),
    ({"remedies": [{"name": "bn", "sigma": -1}]},
     r"remedies.bn.sigma: expected float greater than or equal to 0, got -1"),
    ({"remedies": [{"name": "bn", "items": -5}]},
     r"remedies.bn.items: expected int greater than or equal to 0, got -5"),
    ({"remedies": [{"name": "bn", "std": [0, 0, 0]}]}, r"remedies.bn.std: expected .* greater than 0, got"),
    ({"stresses": [{"name": "top_k", "std": [0, 0, 0]}]}, r"stresses.top_k.std: expected .* greater than 0, got"),
    ({"stresses": [{"name": "band_noise", "draws": 0}]}, r"stresses.band_noise.draws: .* greater than or equal to 1"),
    ({"arms": [{"name": "a", "view": {"name": "noise", "sigma": -0.3}}]},
     r"arms.a.view.sigma: expected float greater than or equal to 0, got -0.3"),
    ({"arms": [{"name": "a", "view": {"name": "noise", "std": [0.2, 0.2]}}]}, r"arms.a.view.std: "),
    ({"arms": [{"name": "a", "view": {"name": "crop_flip", "padding": -3}}]},
     r"arms.a.view.padding: expected int greater than or equal to 0, got -3"),
    ({"arms": [{"name": "a", "view": {"name": "crop_flip", "flip": 2}}]},
     r"arms.a.view.flip: expected float less than or equal to 1, got 2"),
])
def test_wrong_names_are_said_before_any_work(changes, message):
    with pytest.raises(UserError, match=message):
        study_from(tiny_values(**changes))


@pytest.mark.parametrize("where", ["source", "input"])
def test_a_view_that_fails_on_images_does_so_before_any_work(where, tmp_path, monkeypatch):
    """Views of one's own say what is wrong only when they see an image: plan and run show them two."""

    def narrow(image, rng, *, where: str):
        raise UserError("view", "images of 64 px", f"{image.shape[-1]}", "Use larger images.")

    monkeypatch.setitem(views._parts, "narrow", narrow)
    monkeypatch.setitem(views._facts, "narrow", ViewFacts())
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    study = tiny_study(arms=[{"name": "cosine"}, {"name": "a", "view": {"name": "narrow", "where": where}}])
    for start in (lambda: plan_study(study, tmp_path / "run", "cpu", jobs=1),
                  lambda: run_study(study, tmp_path / "run", jobs=1)):
        with refused(where="arms.a.view", expected="64", got=8 if where == "source" else 16):
            start()
    assert not (tmp_path / "cache").exists()


def test_arms_of_one_seed_share_initial_weights_order_and_noise():
    streams = [KeyedStreams(7, "S") for _ in range(2)]
    preprocess = Preprocess(16)
    first, second = (s.build(lambda: build_student("paper_cnn", {}, 8, preprocess, "S", torch.device("cpu"))) for s in streams)
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))
    assert (streams[0].order(3, 50) == streams[1].order(3, 50)).all()
    arms = [Arm(name=n, view={"name": "noise", "sigma": s}, view_target=t)
            for n, s, t in (("a", 0.1, "same"), ("b", 0.2, "clean"))]
    images = [view_of(a, 7, 2)(GREY, IDS) - 128 / 255 for a in arms]
    assert torch.allclose(2 * images[0], images[1], atol=1e-6)


def running(module):
    return {k: v.clone() for k, v in module.state_dict().items() if "running" in k}


def test_re_estimation_changes_running_statistics_and_nothing_else():
    student, train = make_student(), make_source(120, split="train")
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    changed = bn_reestimated(student, train, noise(sigma=0.5, fixed=True))
    assert all(torch.equal(v, before[k]) for k, v in student.module.state_dict().items())
    for key, value in changed.module.state_dict().items():
        same = torch.equal(value, before[key])
        assert same is not ("running" in key) or "num_batches" in key, key
    assert not changed.module.training and all(m.momentum == 0.1 for m in changed.module.modules() if hasattr(m, "momentum"))
    assert changed.num_parameters == student.num_parameters and changed.described == student.described


def test_re_estimation_gives_the_moments_of_what_the_layer_sees():
    student, train = make_student(), make_source(120, split="train")
    changed = bn_reestimated(student, train, None, batch_size=120)
    with torch.no_grad():
        seen = student.module[0](student.preprocess(train.read(range(120))))
    assert torch.allclose(changed.module[1].running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(changed.module[1].running_var, seen.var(dim=(0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("count", [512, 300])  # 300: two batches, and no class is left out
def test_re_estimation_of_images_stored_by_class_gives_the_moments_of_all(count):
    student, mixed = make_student(), make_source(count, split="train")
    light = np.arange(count) < count // 2
    pixels = np.where(light[:, None, None, None], 200 + mixed.pixels // 8, mixed.pixels // 8).astype(np.uint8)
    by_class = replace(mixed, pixels=pixels, labels=(~light).astype(np.int64), hashes=None)
    whole, found = (bn_reestimated(student, by_class, None, batch_size=size) for size in (count, 256))
    for key, value in running(found.module).items():
        assert torch.allclose(value, running(whole.module)[key], rtol=0.25 if "var" in key else 0.05, atol=0.02), key
    cosines = torch.cosine_similarity(*(torch.from_numpy(s.embed_source(by_class)) for s in (whole, found)))
    assert cosines.min() > 0.98
    again = bn_reestimated(student, by_class, None)
    assert all(torch.equal(value, running(again.module)[key]) for key, value in running(found.module).items())


def test_re_estimation_without_noise_leaves_the_student_nearly_as_it_was(test_items):
    student = make_student()  # its statistics come from the same train images
    changed = bn_reestimated(student, make_source(120, split="train"), noise(sigma=0.0, fixed=True))
    a, b = student.embed_source(test_items), changed.embed_source(test_items)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.99
    noisy = bn_reestimated(student, make_source(120, split="train"), noise(sigma=2.0, fixed=True)).embed_source(test_items)
    assert np.abs(noisy - a).mean() > 10 * np.abs(b - a).mean()


def test_a_student_without_batch_norms_is_left_out_with_the_reason():
    student = build_student("timm", {"model": "test_vit"}, 8, Preprocess(32), "V", torch.device("cpu"))
    assert remedies.call("bn", {}, student, make_source(), 0) == "this student has no batch norms"


def test_blur_pool_adds_no_parameter_and_aliases_less():
    plain, blurred = paper_cnn(16, 32), paper_cnn(16, 32, blur_pool=True)
    blurred.load_state_dict(plain.state_dict())
    assert blurred(torch.zeros(2, 3, 32, 32)).shape == (2, 16)
    pools = plain[3], blurred[3]
    spike = torch.zeros(1, 16, 32, 32)
    spike[..., 11, 11] = 1
    moved = spike.roll(1, -1)  # one pixel: what follows should hardly notice
    assert [pool(spike).shape for pool in pools] == [(1, 16, 16, 16)] * 2
    changes = [(pool(spike) - pool(moved)).norm() / pool(spike).norm() for pool in pools]
    assert changes[1] < changes[0]


SETTINGS = {"pca": {"dim": 4}, "top_k": {"k": 3}, "whiten": {"exponent": 0.5, "dim": 5}, "phi_s": {"dim": 8},
            "random": {"dim": 6}}


@pytest.fixture(scope="module")
def student():
    return make_student()


@pytest.fixture(scope="module")
def train():
    return make_source(120, split="train")


@pytest.mark.parametrize("name", [n for n in targets if n != "none"])
def test_the_layer_gives_the_numbers_of_the_target_and_is_stored_with_the_student(name, student, train, tmp_path, test_items):
    changed = remedies.call("posthoc", {"target": name, **SETTINGS.get(name, {})}, student, train, 0)
    if name == "standardise" and isinstance(changed, str):  # dead units
        pytest.skip(changed)
    twin = posthoc_twin(name, SETTINGS.get(name, {}), student.embed_source(train))
    wanted = twin(student.embed_source(test_items))
    found = changed.embed_source(test_items)
    assert found.shape == wanted.shape == (len(test_items), changed.dim)
    assert np.allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    save_student(changed, tmp_path, {"remedy": {"name": "posthoc"}})
    again = load_student(tmp_path, "cpu")
    assert np.array_equal(again.embed_source(test_items), found) and again.dim == changed.dim
    assert capacity(again.module, 16)["parameters"] == again.num_parameters > student.num_parameters
    assert sorted(p.name for p in tmp_path.iterdir()) == ["student.json", "weights.safetensors"]


def test_whitened_train_embeddings_are_white_and_the_student_is_left_alone(student, train):
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    changed = posthoc(student, train, 0, target="whiten", exponent=1.0, dim=4)
    assert np.allclose(np.cov(changed.embed_source(train).T, bias=True), np.eye(4), atol=0.01)
    assert all(torch.equal(v, before[k]) for k, v in student.module.state_dict().items())
    assert "transform" not in student.described


def test_labels_are_not_asked_for(student):
    z = [posthoc(student, make_source(120, labels=has, split="train"), 0, dim=4).embed_source(make_source())
         for has in (True, False)]
    assert np.array_equal(*z)


def test_the_layer_is_exact_in_float32_even_under_autocast_and_for_a_zero_row():
    rng = np.random.default_rng(0)
    target = Target("t", rng.normal(size=4).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32),
                    np.ones(3, np.float32), True)
    layer = Transform({k: torch.from_numpy(getattr(target, k)) for k in ("mean", "matrix", "offset")}, wave=True)
    rows = np.vstack([rng.normal(size=(5, 4)), np.zeros((1, 4))]).astype(np.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.allclose(layer(torch.from_numpy(rows)).numpy(), target(rows), atol=1e-6)


def test_what_cannot_be_fitted_is_left_out_with_the_reason(student, train):
    few = train.take(np.arange(10))
    assert "rank 9 on 10 train images" in posthoc(student, few, 0, target="whiten", exponent=0.5)
    assert posthoc(student, few, 0, target="none") == "the target none changes nothing"


@pytest.mark.parametrize(("changes", "message"), [
    ({"target": "whitn"}, "remedies.posthoc.target: expected a known target, got 'whitn'. Did you mean 'whiten'"),
    ({"target": "whiten", "exponent": 2}, "remedies.posthoc.exponent: expected float less than or equal to 1, got 2"),
    ({"target": "whiten", "k": 3}, "remedies.posthoc.k: expected a known setting of target 'whiten', got 'k'"),
    ({"target": "top_k"}, "remedies.posthoc.k: expected a value"),
])
def test_wrong_settings_are_said_before_any_work(changes, message):
    with pytest.raises(UserError, match=message):
        study_from(tiny_values(remedies=[{"name": "posthoc", **changes}]))


def test_a_broken_description_is_one_line(student, train, tmp_path):
    save_student(posthoc(student, train, 0, dim=4), tmp_path)
    file = tmp_path / "student.json"
    file.write_text(file.read_text().replace('"shapes"', '"shape"'))
    with refused(where="student.json transform.shapes", got="nothing"):
        load_student(tmp_path)


def test_a_timm_student_takes_it_too(train):
    other = build_student("timm", {"model": "test_vit"}, 8, Preprocess(32), "V", torch.device("cpu"))
    assert posthoc(other, train, 0, target="centre").embed_source(train).mean(axis=0) == pytest.approx(0, abs=1e-5)


def test_in_a_study_it_is_an_arm_with_probes_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    study = tiny_study(seeds=[1], limit=120, limit_test=40, training={"epochs": 1, "batch_size": 32},
                       remedies=[{"name": "posthoc", "target": "whiten", "exponent": 0.5, "dim": 12, "label": "half"},
                                 {"name": "posthoc", "target": "whiten", "dim": 99999, "label": "wide"}, "bn"],
                       stresses=[{"name": "gradient", "items": 16}, {"name": "latency", "repeats": 2}])
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    rows = run.results[run.results["split"] == "test"].set_index(["arm", "measure", "condition"])["value"]
    assert set(run.results["arm"]) == {"", "cosine", "cosine+half", "cosine+bn"}  # the teacher is of no arm
    for measure, condition in (("paper.probe.student.accuracy", "noise=0.1"), ("mapped.effective_rank", "clean"),
                               ("gradient.student.frequency", "clean"), ("capacity.latency_ms", "clean")):
        assert np.isfinite(rows["cosine+half", measure, condition])
    norm = "paper.probe.student.gradient_norm"
    assert rows["cosine+bn", norm, "clean"] == rows["cosine", norm, "clean"] != rows["cosine+half", norm, "clean"]
    size = "capacity.parameters"
    dim = run.student("S").dim
    assert rows["cosine+half", size, "clean"] == rows["cosine", size, "clean"] + dim + 12 * dim
    assert rows["cosine+half", "student.effective_rank", "clean"] <= 12
    trial, = (run.path / "trials").iterdir()
    assert load_student(trial / "remedies" / "half").dim == 12
    assert "remedy wide: target.dim" in (trial / "complete.json").read_text()
