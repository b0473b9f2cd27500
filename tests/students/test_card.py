"""The model card: its front matter and its table are ours, whatever names hold."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from distillscope.config.load import study_from
from distillscope.data.preprocess import Preprocess
from distillscope.students.card import model_card
from distillscope.students.load import build_student

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
    return model_card(study, splits, student, [last], f"distillscope distill --data '{NASTY}'", Path(f"/students/a b{NASTY}"))


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
