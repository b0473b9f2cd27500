"""The pictures of docs/measures.md, drawn by the audit itself on the digits that come with scikit-learn.

    python docs/figures/draw.py          # all of them, into this folder

Every student here is the teacher with one known thing done to it, so that a reader can see what each measure sees.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from distillscope.draws import keyed_rng
from distillscope.files.writing import write_text
from distillscope.measure.audit import audit
from distillscope.measure.pool import Settings
from distillscope.measure.results import Audit
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.figures.figure import Figure, Mark, Panel, Series
from distillscope.results.models import MARKERS, NULL_COLOUR, STUDENT_COLOURS, TEACHER_COLOUR

HERE = Path(__file__).parent
DIGITS = load_digits()
ORDER = keyed_rng("pictures", "order").permutation(len(DIGITS.data))  # digits are stored writer by writer
TEACHER, LABELS = DIGITS.data[ORDER] / 16, DIGITS.target[ORDER]
MEAN = TEACHER.mean(axis=0)
COMPONENTS = np.linalg.svd(TEACHER - MEAN, full_matrices=False)[2]
PARTS = keyed_rng("pictures", "noise").normal(size=TEACHER.shape)
TURN = np.linalg.qr(keyed_rng("pictures", "turn").normal(size=(64, 64)))[0]


def first(k: int) -> np.ndarray:
    """A student that keeps the teacher's first k components and nothing else."""
    return MEAN + (TEACHER - MEAN) @ COMPONENTS[:k].T @ COMPONENTS[:k]


def noisy(sigma: float) -> np.ndarray:
    """The teacher with white noise."""
    return TEACHER + sigma * PARTS


def regressor(num_pixels: int = 8) -> np.ndarray:
    """What least squares knows of the teacher from a few of its pixels: no component was cut off on purpose."""
    seen = np.c_[TEACHER[:, 20 : 20 + num_pixels], np.ones(len(TEACHER))]
    return seen @ np.linalg.lstsq(seen, TEACHER, rcond=None)[0] + 0.02 * PARTS


def measured(student: np.ndarray, *groups: str, teacher: np.ndarray = TEACHER, labels: np.ndarray | None = None, **settings) -> Audit:
    return audit(teacher, student, labels, groups=groups, intervals=False, settings=Settings(**settings) if settings else None)


def drawn(label: str, x, y, number: int = 0, **more) -> Series:
    """A student's series; number 0 is the teacher's, -1 a null's."""
    colour = NULL_COLOUR if number < 0 else TEACHER_COLOUR if number == 0 else STUDENT_COLOURS[number - 1]
    settings = {"marker": MARKERS[max(number, 0)], "dash": "dot" if number < 0 else "solid", **more}
    return Series(label, label, colour, [float(v) for v in x], [float(v) for v in y], **settings)


def curve_of(found: Audit, key: str, label: str, number: int) -> Series:
    return drawn(label, found.curves[key].x, found.curves[key].y, number)


def spectrum() -> Figure:
    """Rank against n, raw and corrected; rank and R2 as noise is added."""
    sizes, raw, corrected = [30, 60, 120, 300, 600, 1797], [], []
    for n in sizes:
        found = measured(TEACHER[:n], "spectrum", teacher=TEACHER[:n])
        raw.append(found["teacher.effective_rank"])
        corrected.append(found["teacher.effective_rank_corrected"])
    sigmas, rank, r2 = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4], [], []
    for sigma in sigmas:
        found = measured(first(8) + sigma * PARTS, "spectrum", "alignment")
        rank.append(found["student.effective_rank"] / found["teacher.effective_rank"])
        r2.append(found["alignment.teacher_r2"])
    return Figure("spectrum", "", "", [
        Panel("Few items read a low rank", "items n", "effective rank", [drawn("raw rank", sizes, raw), drawn("corrected rank", sizes, corrected, 1)],
              x_log=True, x_ticks=[(n, str(n)) for n in sizes], y_range=(0, 22)),
        Panel("Noise raises the rank, and tells nothing", "noise on 8 components", "of the teacher's", [
            drawn("effective rank", sigmas, rank, 2), drawn("R²", sigmas, r2, 3)],
            [Mark(1.0, "the teacher's", dash="dot")], y_percent=True, y_range=(0, 2.7))])


def alignment() -> Figure:
    """Where the variance lies and what is recovered: eight components, and a regressor."""
    students = {"its first 8 components": first(8), "regression on 8 pixels": regressor()}
    found = {name: measured(z, "alignment") for name, z in students.items()}
    one = next(iter(found.values()))
    left = [curve_of(one, "alignment.teacher_on_teacher", "teacher, its own curve", 0)]
    left += [curve_of(f, "alignment.student_on_teacher", name, i + 1) for i, (name, f) in enumerate(found.items())]
    left.append(curve_of(one, "alignment.null", "null, k/d", -1))
    right = [curve_of(f, "alignment.teacher_r2_per_component", name, i + 1) for i, (name, f) in enumerate(found.items())]
    return Figure("alignment", "", "", [
        Panel("Both lie in the leading components", "the teacher's components k", "student's variance in the first k", left, x_log=True,
              y_percent=True, y_range=(0, 1.03)),
        Panel("Only one is a truncation", "the teacher's component", "R² of the component", right, x_log=True, y_range=(-0.1, 1.05))])


def contrastive() -> Figure:
    """Nats kept below the ceiling, over K; the loss over the temperature."""
    students = {"8 components": first(8), "with much noise": noisy(0.5)}
    left, right = [], []
    for i, (name, z) in enumerate({"teacher itself": TEACHER, **students}.items()):
        found = measured(z, "contrastive")
        loss = found.curves["contrastive.infonce_by_k"]
        left.append(drawn(name, loss.x, np.log(loss.x) - loss.y, i))
        heat = found.curves["contrastive.infonce_by_temperature"]
        right.append(drawn(name, heat.x, heat.y, i))
    left.append(drawn("ceiling, log K", loss.x, np.log(loss.x), -1))
    return Figure("contrastive", "", "", [
        Panel("What is kept levels off below the ceiling", "candidates K", "nats kept", left, x_log=True, x_ticks=[(float(k), str(k)) for k in loss.x]),
        Panel("Alike at 0.1, apart at 0.02", "temperature", "InfoNCE loss, nats", right, x_log=True,
              x_ticks=[(float(t), f"{t:g}") for t in heat.x if t not in (0.03, 0.07)])])


def paper() -> Figure:
    """What batches in row order and self-pairs do to the paper's own measures."""
    student, by_class = first(8), np.argsort(LABELS, kind="stable")
    mixed = measured(student, "paper", "spectrum")
    ordered = measured(student[by_class], "paper", teacher=TEACHER[by_class])
    bars = [drawn(name, [i], [value], i + 1, kind="bars") for i, (name, value) in enumerate((
        ("mixed", mixed["paper.infonce"]), ("sorted by class", ordered["paper.infonce"])))]
    even = [drawn(name, [i], [value], number, kind="bars") for i, (name, value, number) in enumerate((
        ("teacher", mixed["teacher.uniformity"], 0), ("teacher, paper's", mixed["paper.teacher_uniformity"], 0),
        ("student", mixed["student.uniformity"], 1), ("student, paper's", mixed["paper.uniformity"], 1)))]
    return Figure("paper", "", "", [
        Panel("Sorted rows make batches of one class", "", "paper.infonce, nats", bars,
              [Mark(mixed["paper.infonce_ceiling"], "ceiling")], x_ticks=[(0, "rows mixed"), (1, "rows sorted\nby class")], y_range=(0, 4.7)),
        Panel("Self-pairs change uniformity", "", "uniformity (lower is more even)", even,
              x_ticks=[(0, "teacher"), (1, "teacher,\npaper's"), (2, "student"), (3, "student,\npaper's")])])


def similarity() -> Figure:
    """Independent data over n; three students with intervals' worth of difference."""
    sizes, keys = [40, 80, 160, 400, 1000, 1797], ("linear_cka", "linear_cka_debiased", "procrustes", "mutual_knn_10")
    apart = {n: measured(PARTS[:n], "similarity", teacher=TEACHER[:n], null_draws=3) for n in sizes}
    left = [drawn(name, sizes, [apart[n][f"similarity.{key}"] for n in sizes], i + 1)
            for i, (name, key) in enumerate(zip(("CKA", "CKA, debiased", "Procrustes", "10 nearest"), keys, strict=True))]
    labels, right = ["CKA,\ndebiased", "Pro-\ncrustes", "RSA", "10\nnearest"], []
    for i, (name, z) in enumerate({"turned": TEACHER @ TURN, "8 components": first(8), "noise 0.3": noisy(0.3)}.items()):
        found = measured(z, "similarity", null_draws=3)
        values = [found[f"similarity.{k}"] for k in ("linear_cka_debiased", "procrustes", "rsa_spearman", "mutual_knn_10")]
        right.append(drawn(name, np.arange(4) + 0.14 * (i - 1), values, i + 3, kind="points"))
    return Figure("similarity", "", "", [
        Panel("Unrelated data is not at 0", "items n", "similarity", left, [Mark(0.0, "", dash="dot")], x_log=True,
              x_ticks=[(n, str(n)) for n in sizes], y_range=(-0.06, 0.9)),
        Panel("Each is blind to something", "", "similarity", right, x_ticks=list(enumerate(labels)), x_range=(-0.5, 3.5), y_range=(0, 1.05))])


def retrieval() -> Figure:
    """Recall over the size of the index; a turned student with and without the fitted matrix."""
    sizes, noise, turned = [50, 100, 200, 500, 1000, 1797], [], []
    for n in sizes:
        noise.append(measured(noisy(0.3)[:n], "retrieval", teacher=TEACHER[:n]))
        turned.append(measured(first(16)[:n], "retrieval", teacher=TEACHER[:n]))
    left = [drawn(name, sizes, [f["retrieval.recall_at_1"] for f in found], i)
            for i, (name, found) in enumerate((("noise 0.3", noise), ("16 components", turned)), 1)]
    keys = ("retrieval.recall_at_1", "retrieval.mapped_recall_at_1", "retrieval.neighbour_overlap_10")
    right = [drawn(name, np.arange(3) + 0.14 * (i - 2), [found[k] for k in keys], i, kind="points") for i, (name, found) in enumerate((
        ("noise 0.3", noise[-1]), ("16 components", turned[-1]), ("turned", measured(TEACHER @ TURN, "retrieval"))), 1)]
    return Figure("retrieval", "", "", [
        Panel("Recall falls as the index grows", "items in the index", "recall at 1", left, x_log=True, x_ticks=[(n, str(n)) for n in sizes],
              y_percent=True, y_range=(0, 1.05)),
        Panel("A turned student is lost only to look at", "", "share of queries, or of results", right, y_percent=True,
              x_ticks=[(0, "recall\nat 1"), (1, "recall at 1,\nmapped"), (2, "10 results\nin common")], x_range=(-0.5, 2.5), y_range=(-0.03, 1.05))])


def labels() -> Figure:
    """Accuracy over the number of components kept; retention of the probes as a constant is added."""
    ks, few = [2, 4, 8, 16, 32, 64], slice(0, 900)
    kept = {k: measured(first(k)[few], "probe", "knn", "spectrum", teacher=TEACHER[few], labels=LABELS[few]) for k in ks}
    left = [drawn(name, ks, [kept[k][key] for k in ks], i) for i, (name, key) in enumerate((
        ("probe's accuracy retained", "probe.retention"), ("neighbours' accuracy retained", "knn.retention")), 1)]
    left.append(drawn("rank retained", ks, [kept[k]["student.effective_rank"] / kept[k]["teacher.effective_rank"] for k in ks], -1))
    shifts = [0.0, 1.0, 3.0, 10.0, 30.0]
    moved = [measured(TEACHER[few] + shift, "probe", "knn", teacher=TEACHER[few], labels=LABELS[few]) for shift in shifts]
    right = [drawn(name, range(5), [f[key] for f in moved], i) for i, (name, key) in enumerate((
        ("probe's accuracy retained", "probe.retention"), ("neighbours' accuracy retained", "knn.retention"),
        ("paper's probe", "paper.probe.retention")), 1)]
    return Figure("labels", "", "", [
        Panel("Accuracy needs few of the directions", "components kept", "of the teacher's", left, x_log=True, x_ticks=[(k, str(k)) for k in ks],
              y_percent=True, y_range=(0, 1.08)),
        Panel("A constant added: nothing is lost", "added to every dimension", "of the teacher's", right, y_percent=True, y_range=(0, 1.08),
              x_ticks=[(i, f"{s:g}") for i, s in enumerate(shifts)])])


def ood() -> Figure:
    """Digits 0 to 7 are known, 8 and 9 come from elsewhere: over the components kept, and where a threshold may stand."""
    ks, known = [2, 4, 8, 16, 32, 64], LABELS < 8
    found = {k: audit(TEACHER[known], first(k)[known], ood_teacher=TEACHER[~known], ood_student=first(k)[~known], groups="ood", intervals=False)
             for k in ks}
    left = [drawn("AUROC", ks, [found[k]["ood.student.auroc"] for k in ks], 1), drawn("FPR95", ks, [found[k]["ood.student.fpr95"] for k in ks], 2)]
    right = [drawn(name, curve.x, curve.y, i, marker="") for i, (name, curve) in enumerate((
        ("teacher", found[4].curves["ood.teacher_roc"]), ("4 components", found[4].curves["ood.student_roc"])))]
    right.append(drawn("chance", [0, 1], [0, 1], -1))
    return Figure("ood", "", "", [
        Panel("A few directions cannot find a new digit", "components kept", "share", left,
              [Mark(found[64]["ood.teacher.auroc"], "teacher's AUROC", dash="dot")], x_log=True, x_ticks=[(k, str(k)) for k in ks], y_percent=True,
              y_range=(0, 1.05)),
        Panel("Every threshold has its price", "share of known digits taken for new", "share of new digits found", right, y_percent=True,
              x_range=(-0.02, 1.02), y_range=(0, 1.04))])


PICTURES: dict[str, Callable[[], Figure]] = {f.__name__: f for f in (spectrum, alignment, contrastive, paper, similarity, retrieval, labels, ood)}


def main(names: list[str]) -> None:
    """Draw the named pictures, or all of them; only the SVG is kept, with two decimals of a point."""
    for name in names or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            drawn_svg = next(p for p in write_figures([PICTURES[name]()], Path(folder)) if p.suffix == ".svg")
            short = re.sub(r"(?<![\d.])[1-9]\d*\.\d{3,}", lambda number: f"{float(number[0]):.2f}", drawn_svg.read_text())
            path = write_text(HERE / drawn_svg.name, re.sub(r"\n\s+", "\n", short))
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
