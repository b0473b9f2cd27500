"""compare of runs whose images or weights are others under the same names."""

import json

from builders.synthetic_run import make_run, with_predictions
from distillscope.compare.runs import compare_runs
from distillscope.results.run import read_run

SMALL = {"students": ("S", "M"), "dim": 24, "epochs": 2}


def one(found, student, quantity):
    return next(d for d in found.differences if d.match.first.student == student and d.quantity.key == quantity)


def marked(run, **marks):
    """The run with a fingerprint in its references."""
    for path in run.glob("references/*/complete.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": marks}))
    return run


def test_other_images_or_weights_under_the_same_names_are_said_and_not_paired(tmp_path):
    """An older run marked some images only; a split is compared by what both runs have of it."""
    first = with_predictions(make_run(tmp_path / "first", **SMALL), 0.6)
    second = with_predictions(make_run(tmp_path / "second", **SMALL), 0.7, seed=1)
    weights, split = "teacher's weights", read_run(first).split
    marked(first, **{f"{split} images": "a", f"every {split} image": "b", "train images": "c", weights: "d"})

    def against(**marks):
        return compare_runs([first, marked(second, **marks)])

    same = against(**{f"{split} images": "a", weights: "d"})
    assert one(same, "S", "accuracy").how == "paired over seeds" and one(same, "S", "accuracy").items
    tested = against(**{f"{split} images": "a", f"every {split} image": "other", "train images": "c", weights: "d"})
    (said,) = [w for w in tested.warnings if "images" in w]
    assert f"differ in content of the test images ({split}: other; {split}: b): both were measured on other images" in said
    d = one(tested, "S", "accuracy")
    assert d.how == "Welch over seeds" and d.items_left_out == "the content of the test images differs"
    trained = against(**{"train images": "other"})
    (said,) = [w for w in trained.warnings if "images" in w]
    assert "differ in content of the train images (train: other; train: c): seeds are not paired" in said
    assert one(trained, "S", "accuracy").items and one(trained, "S", "accuracy").how == "Welch over seeds"
    taught = against(**{"train images": "c", weights: "other", f"{split} images": "a"})
    assert any("differ in content of the teacher's weights" in w for w in taught.warnings)
    assert one(taught, "S", "r2").left_out == "the content of the teacher's weights differs"
