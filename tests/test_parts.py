"""Contracts of every registry, the parts' closed forms and oracles; and of the rooms."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from importlinter import configuration
from importlinter.application import use_cases
from sklearn.decomposition import TruncatedSVD

from builders import refused
from distillscope.config.resolve import _check_library
from distillscope.errors import UserError
from distillscope.facts import ObjectiveFacts
from distillscope.objectives.contrastive import infonce, infonce_views
from distillscope.objectives.regression import cosine, mse
from distillscope.registry import KINDS, Registry, objectives, students, teachers
from distillscope.students.networks import capacity, paper_cnn, timm_student
from distillscope.targets.transforms import pca, unit_rows
from distillscope.teachers.models import timm as timm_teacher


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, r in KINDS.items() for n in r])
def test_every_part_is_documented_and_its_settings_are_keywords_with_types(kind, name):
    function = KINDS[kind].get(name)
    assert len(KINDS[kind].summary(name)) > 20
    for parameter in KINDS[kind].settings(name).values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    assert function.__module__.startswith("distillscope.")


def test_names_and_settings_are_checked():
    with refused(advice="'cosine'"):
        objectives.get("cosin")
    with refused(expected="'infonce'", got="'temprature'", advice="'temperature'"):
        objectives.check("infonce", {"temprature": 1})
    with refused(where="temperature", got="'hot'"):
        objectives.check("infonce", {"temperature": "hot"})
    registry = Registry("thing", "distillscope.objectives", ObjectiveFacts)
    registry.register("a")(lambda: None)
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("a")(math.sqrt)


def test_facts_are_checked_where_a_part_is_registered():
    registry = Registry("thing", "distillscope.objectives", ObjectiveFacts)
    with refused(got="'famly'", advice="'family'"):
        registry.register("a", famly="regression")
    with refused(got="'regresion'"):
        registry.register("a", family="regresion")
    registry.register("a", family="spread")(lambda: None)
    assert registry._facts["a"] == ObjectiveFacts(family="spread")
    assert registry.declared("a").facts.family == "spread" and registry.declared("none such") is None


def test_lists_of_what_needs_no_torch_do_not_import_it():
    """And neither does asking for an objective's family."""
    code = ("import sys; from distillscope import list_parts; from distillscope.registry import KINDS, objectives; "
            "[KINDS[k].summary(n) for k in ('measures', 'claims', 'curves') for n in list_parts(k)]; "
            "assert objectives.declared('mse').facts.family == 'regression'; assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_from_the_files_is_what_the_parts_say(kind):
    registry = KINDS[kind]
    for name, declared in registry._in_files.items():
        assert list(declared.needs) == registry.needs(name)
        plain = {k: v for k, v in registry.facts(name) if isinstance(v, (str, bool, int, float))}
        assert {k: v for k, v in declared.facts if isinstance(v, (str, bool, int, float))} == plain
    assert kind != "objectives" or set(registry._in_files) == set(registry), "readers that import no torch see them all"


@pytest.mark.parametrize(("width", "parameters"), [(1, 811_264), (2, 1_405_440), (4, 2_732_032)])
def test_the_papers_students_have_their_true_counts(width, parameters):
    c = [3, 16 * width, 32 * width, 64 * width]
    convolutions = 9 * (c[0] * c[1] * 32**2 + c[1] * c[2] * 16**2 + c[2] * c[3] * 8**2)
    found = capacity(paper_cnn(512, 32, width=width), 32)
    assert found == {"parameters": parameters, "multiply_adds": convolutions + c[3] * 16 * 512 + 512 * 512}


def test_a_timm_student_is_projected_to_the_teachers_dimension():
    student = timm_student(48, 32, model="test_vit")
    assert student(torch.zeros(2, 3, 32, 32)).shape == (2, 48)
    for build in (lambda: timm_student(48, 32, model="resnt18"), lambda: timm_teacher(model="resnt18")):
        with refused(expected="a model that timm knows", got="resnt18", advice="Near it: resnet18, "):
            build()
    for part, name, near in ((teachers, "efficientnet_lite", "efficientnet_lite0"), (students, "mobilenetv4_conv_smal",
                                                                                      "timm/mobilenetv4_conv_small")):
        with refused(got=name, advice=f"Did you mean {near}?" if "/" in near else f"Did you mean '{near}'?"):
            _check_library(part, name, "x")
            part.check(name, {})
    with pytest.raises(UserError, match="linear, since"):
        timm_student(48, 32, model="test_resnet", projection="none")


def test_objectives_against_closed_forms_and_other_libraries():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(16, 8, generator=generator) for _ in range(2))
    assert cosine(s, t) == pytest.approx(float((1 - torch.nn.functional.cosine_similarity(s, t)).mean()), abs=1e-6)
    assert cosine(s, 5 * s) == pytest.approx(0, abs=1e-6)
    assert mse(s, t) == pytest.approx(float(np.mean((s.numpy() - t.numpy()) ** 2)), rel=1e-6)
    unit_s, unit_t = unit_rows(s.numpy()), unit_rows(t.numpy())
    logits = unit_s @ unit_t.T / 0.5
    by_hand = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
    assert infonce(s, t, temperature=0.5) == pytest.approx(by_hand, rel=1e-5)
    assert infonce_views(s, t) == pytest.approx(float(infonce(s, t) + infonce(t, s)) / 2, rel=1e-5)


def test_pca_is_the_uncentred_svd_of_the_unit_rows():
    z = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32) * np.linspace(3, 0.1, 20) + 1
    target = pca(z, dim=6)
    oracle = TruncatedSVD(6, algorithm="arpack", random_state=0).fit(unit_rows(z).astype(np.float64))
    assert np.abs(np.abs(target.matrix.T @ oracle.components_.T) - np.eye(6)).max() < 1e-4  # float32 matrix, close eigenvalues
    assert target(z).shape == (300, 6) and target.name == "pca6"
    whole = pca(z, dim=20)
    assert np.allclose(whole(z) @ whole(z).T, unit_rows(z) @ unit_rows(z).T, atol=1e-5)
    with refused(expected="20", got="21"):
        pca(z, dim=21)


def test_the_papers_hidden_layer_is_512_wide_and_students_of_before_load(tmp_path):
    import json

    import torch

    from distillscope.data.preprocess import Preprocess
    from distillscope.students.load import build_student, load_student, save_student
    from distillscope.students.networks import HIDDEN, paper_cnn

    assert [m.out_features for m in paper_cnn(24, 16) if isinstance(m, torch.nn.Linear)] == [HIDDEN, 24] == [512, 24]
    for hidden, written in (("target", False), (HIDDEN, True), (40, True)):
        folder = tmp_path / str(hidden)
        made = build_student("paper_cnn", {"hidden": hidden}, 24, Preprocess(16), "S", torch.device("cpu"))
        save_student(made, folder)
        described = json.loads((folder / "student.json").read_text())
        if not written:  # as it was until 2026-11-26
            del described["settings"]["hidden"]
            (folder / "student.json").write_text(json.dumps(described))
        loaded = load_student(folder, "cpu")
        assert [m.out_features for m in loaded.module
                if isinstance(m, torch.nn.Linear)][0] == (24 if hidden == "target" else hidden)
    save_student(build_student("paper_cnn", {}, 24, Preprocess(16), "S", torch.device("cpu")), tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "student.json").read_text())["settings"] == {"hidden": 512}


def test_every_room_imports_only_what_it_may(capsys):
    configuration.configure()
    kept = use_cases.lint_imports(str(Path(__file__).parents[1] / "pyproject.toml"), cache_dir=None, no_logo=True)
    assert kept, capsys.readouterr().out
