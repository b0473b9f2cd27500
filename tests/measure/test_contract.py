"""What every registered measure and curve owes, whatever it measures; as a function of arrays it gives the audit's number.

And moments, and what an audit makes of rounded values, of squares that leave float64, and of dimensions that say nothing.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest

import distillscope
from builders import refused
from builders.planted import cloud, student_of
from distillscope.errors import UserError
from distillscope.measure import functional
from distillscope.measure.audit import audit, audit_one
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import Pair, resolve_name
from distillscope.measure.pool import Settings, Side
from distillscope.measure.results import GROUPS, NotMeasured, definition
from distillscope.measure.rows import Accumulator, Rows, Stored, merged, moments, unit
from distillscope.measure.scan import content_order, row_keys, scan
from distillscope.measure.spectrum import algebraic_rank, rounding_energy, spectral_decay
from distillscope.registry import KINDS, curves, measures

DOCS = Path(__file__).parents[2] / "docs" / "measures.md"
NAMES = list(measures)
UNITS = {"dims", "share", "flag", "exponent", "log kernel", "cosine", "R2", "degrees", "nats", "temperature", "correlation",
         "norm", "C", "p", "skewness"}
LABELS = np.arange(120) % 3
ONE_SIDE = ("effective_rank", "effective_rank_corrected", "participation_ratio", "stable_rank", "rankme", "uniformity",
            "twonn_dimension")
TWO_SIDES = {"similarity.linear_cka": functional.linear_cka, "similarity.procrustes": functional.procrustes,
             "similarity.rsa_spearman": functional.rsa, "similarity.mutual_knn_10": functional.mutual_knn,
             "retrieval.neighbour_overlap_10": functional.neighbour_overlap, "retrieval.recall_at_1": functional.recall_at_k,
             "alignment.mean_cosine": functional.mean_cosine, "alignment.teacher_r2": functional.teacher_r2,
             "contrastive.infonce": functional.infonce,
             "similarity.linear_cka_debiased": lambda x, y: functional.linear_cka(x, y, debiased=True),
             "retrieval.recall_at_5": lambda x, y: functional.recall_at_k(x, y, 5),
             "retrieval.mapped_recall_at_10": lambda x, y: functional.recall_at_k(x, y, 10, mapped=True)}
FEW = Settings(null_draws=3)
ORDER_FREE = ("teacher.effective_rank", "teacher.participation_ratio", "teacher.dims_90", "teacher.uniformity",
              "teacher.twonn_dimension",
              "teacher.rankme", "alignment.mean_cosine", "alignment.student_variance_top20", "similarity.linear_cka",
              "similarity.linear_cka_debiased", "similarity.procrustes", "similarity.rsa_spearman", "similarity.mutual_knn_10",
              "contrastive.infonce", "retrieval.recall_at_1", "knn.teacher.accuracy", "paper.infonce")
"""What does not depend on the order of the rows, which their content decides, and so their scale."""


def inputs():
    teacher = cloud(0, n=120, d=24)
    teacher[:, :3] += np.eye(3)[LABELS]
    return teacher, student_of(teacher, 1), LABELS, np.eye(24)[:3]


def elsewhere():
    other = cloud(2, n=60, d=24) + 1
    return {"ood_teacher": other, "ood_student": student_of(other, 3)}


@pytest.fixture(scope="module")
def found():
    teacher, student, labels, text = inputs()
    return audit(teacher, student, labels, text=text, subgroups=LABELS > 0, **elsewhere())


def keys_of(name: str) -> list[str]:
    in_spectrum = (measures if name in NAMES else curves).facts(name).group == "spectrum"
    return [f"teacher.{name}", f"student.{name}"] if in_spectrum else [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_finite_on_ordinary_data_with_what_it_says_of_itself(found, name):
    quantity = measures.facts(name)
    if name.startswith("few.") and name.endswith("_50"):  # 120 items are too few for three parts with 50 of each
        assert "51 or more" in found.left_out[name]
        return
    for key in keys_of(name):
        value = found.measured[key]
        assert isinstance(value.value, (int, float)) and np.isfinite(value.value)
        assert value.unit in UNITS and 0 < value.n <= 120
        assert value.definition == definition(measures[name]) and value.definition.endswith(".")
        promised = quantity.interval is not None and not name.endswith(("ece", "log_loss"))  # those on a training set alone
        assert (value.low is not None) == promised, "an interval exactly where one is promised"
        if quantity.unit in ("share", "flag", "p") and "debiased" not in name:
            assert 0 <= value.value <= 1 + 1e-12 or "retention" in name or "retained" in name or "difference" in name


@pytest.mark.parametrize("name", NAMES)
def test_what_a_measure_needs_is_in_the_pool(name):
    teacher, student, labels, text = inputs()
    ood = Pair(*(Side(Rows(z)) for z in elsewhere().values()))
    pool = LabelledPair(Side(Rows(teacher)), Side(Rows(student)), labels, text=text, subgroups=LABELS > 0, ood=ood)
    where = pool.teacher if measures.facts(name).group == "spectrum" else pool
    for needed in measures.needs(name):
        try:
            resolve_name(where, needed)
        except NotMeasured:
            assert name.endswith("_50")


@pytest.mark.parametrize("name", list(curves))
def test_a_curve_is_finite_and_described(found, name):
    for key in keys_of(name):
        curve = found.curves[key]
        assert len(curve.x) == len(curve.y) > 1 and np.isfinite(curve.y).all() and curve.unit and curve.definition


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_documented(name):
    function = measures[name]
    assert inspect.getdoc(function) and measures.facts(name).group in GROUPS
    assert f"`{name}`" in DOCS.read_text(encoding="utf-8"), f"docs/measures.md does not explain {name}"


def test_every_curve_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    assert not [name for name in curves if f"`{name}`" not in text]


def test_twice_the_same(found):
    teacher, student, labels, text = inputs()
    again = audit(teacher, student, labels, text=text, subgroups=LABELS > 0, **elsewhere())
    assert again.to_json() == found.to_json()


def test_an_unknown_need_names_what_there_is():
    with pytest.raises(LookupError, match="no 'eigenvalue' in the pool, known: .*eigenvalues"):
        resolve_name(Side(Rows(cloud(0))), "eigenvalue")


@pytest.fixture(scope="module")
def sides():
    return inputs()[:2]


@pytest.fixture(scope="module")
def of_pair(sides):
    return audit(*sides, LABELS, train_teacher=sides[0][::-1] + 0.1, train_student=sides[1][::-1], train_labels=LABELS[::-1],
                 text=np.eye(24)[:3], intervals=False)


@pytest.mark.parametrize("name", ONE_SIDE)
def test_of_one_side(sides, of_pair, name):
    assert getattr(functional, name)(sides[0]) == of_pair[f"teacher.{name}"]


@pytest.mark.parametrize("key", TWO_SIDES)
def test_of_two_sides(sides, of_pair, key):
    assert TWO_SIDES[key](*sides) == of_pair[key]


def test_of_labels(sides, of_pair):
    given = sides[0][::-1] + 0.1, LABELS[::-1], sides[0], LABELS
    assert functional.probe_accuracy(*given) == of_pair["probe.teacher.accuracy"]
    assert functional.probe_accuracy(*given, paper=True) == of_pair["paper.probe.teacher.accuracy"]
    assert functional.knn_accuracy(*given) == of_pair["knn.teacher.accuracy"]
    assert functional.zero_shot_accuracy(sides[0], LABELS, np.eye(24)[:3]) == of_pair["zero_shot.teacher.accuracy"]


def test_rows_are_normalised_where_asked(sides):
    whole = audit(*sides, normalize="l2", groups=["spectrum", "similarity"], intervals=False)
    assert functional.effective_rank(sides[0], normalize="l2") == whole["teacher.effective_rank"]
    assert functional.linear_cka(*sides, normalize="l2") == whole["similarity.linear_cka"]


@pytest.mark.parametrize(("call", "got"), [
    (lambda z: functional.effective_rank(z[:3]), "3"),
    (lambda z: functional.effective_rank(np.full_like(z, np.nan)), "NaN"),
    (lambda z: functional.linear_cka(z, z[:50]), "50"),
    (lambda z: functional.recall_at_k(z, z[:, :5]), "5"),
    (lambda z: functional.recall_at_k(z, z, 0), "0"),
    (lambda z: functional.mutual_knn(z, z, k=500), "more than 501"),
    (lambda z: functional.probe_accuracy(z, np.zeros(len(z)), z, LABELS), "one"),
])
def test_what_cannot_be_measured_is_a_value_error_in_one_line(sides, call, got):
    with pytest.raises(ValueError, match=got) as refused:
        call(sides[0])
    assert isinstance(refused.value, UserError)


def test_every_function_says_what_it_takes_and_shows_it():
    for name, function in inspect.getmembers(functional, inspect.isfunction):
        if function.__module__ == functional.__name__ and not name.startswith("_"):
            assert ">>>" in function.__doc__ and "(n, " in function.__doc__, name


def test_the_parts_of_a_kind_are_listed():
    assert distillscope.list_measures() == distillscope.list_parts("measures") == list(KINDS["measures"])
    assert "cosine" in distillscope.list_objectives() and "list_claims" in dir(distillscope)
    with refused(advice="'measures'"):
        distillscope.list_parts("measure")
    with pytest.raises(AttributeError):
        distillscope.list_nothing  # noqa: B018


def bfloat16_bits(z: np.ndarray) -> np.ndarray:
    return (z.astype(np.float32).view(np.uint32) + 0x8000 >> 16).astype(np.uint16)


def low_rank(n: int = 600, d: int = 128, rank: int = 48, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """Rows of exact rank: a power law of 48 components in 128 dimensions."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, rank)) * np.arange(1, rank + 1) ** -1.0
    return scores @ np.linalg.qr(rng.normal(size=(d, rank)))[0].T + offset


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("normalize", [None, "l2"])
def test_rounding_to_float16_changes_neither_rank_nor_decay(offset, normalize):
    """In float16, and again where the float16 values are stored as float32 or float64."""
    z = low_rank(offset=offset)
    exact = audit_one(z, intervals=False, normalize=normalize)
    for rounded in (z.astype(np.float16), z.astype(np.float16).astype(np.float32), z.astype(np.float16).astype(np.float64)):
        found = audit_one(rounded, normalize=normalize)
        assert found["teacher.algebraic_rank"] == exact["teacher.algebraic_rank"], rounded.dtype
        assert found["teacher.spectral_decay"] == pytest.approx(exact["teacher.spectral_decay"], rel=0.01)
        assert found.precision == {"teacher": "float16"} and any("rounded to float16" in note for note in found.notes)
    assert exact.precision == {"teacher": "float64"} and not any("rounded" in note for note in exact.notes)


def test_bfloat16_too_in_shards_and_as_floats():
    z = low_rank(rank=16)
    bits = bfloat16_bits(z)
    stored = Stored([bits[:300], bits[300:]])
    for given in (stored, stored[:], stored[:].astype(np.float64)):
        found = audit_one(given, intervals=False)
        assert found["teacher.algebraic_rank"] == 16 and found.precision == {"teacher": "bfloat16"}
        assert found["teacher.spectral_decay"] == pytest.approx(audit_one(z, intervals=False)["teacher.spectral_decay"],
                                                                rel=0.02)


def test_a_weak_component_is_rounding_only_where_it_lies_below_it():
    """A column of its own scale keeps its digits in float16 however weak it is."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 12)) * 10.0 ** -np.arange(0, 3, 0.25)
    assert audit_one(z.astype(np.float16), intervals=False)["teacher.algebraic_rank"] == 12
    mixed = z @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
    lost = audit_one((mixed + 100).astype(np.float16), intervals=False)["teacher.algebraic_rank"]
    assert lost < 12, "errors of 100 / 2048 hide what varies by less"


def test_float32_and_exact_integers_keep_their_rank():
    z = low_rank(rank=20)
    assert audit_one(z.astype(np.float32), intervals=False)["teacher.algebraic_rank"] == 20
    counts = np.random.default_rng(0).integers(0, 8, size=(300, 10)).astype(np.float64)
    assert audit_one(counts, intervals=False)["teacher.algebraic_rank"] == 10


def test_rounding_energy_is_what_rounding_adds():
    z = np.random.default_rng(0).normal(size=(4000, 3)) * [1, 10, 0.1] + [0, 5, 0]
    errors = np.square(z.astype(np.float16).astype(np.float64) - z).sum(axis=0)
    bound = rounding_energy(np.square(z).sum(axis=0), len(z), "float16")
    assert (errors < bound).all() and (errors > 0.4 * bound).all()
    small = np.full((1000, 1), 3e-6) * np.random.default_rng(0).uniform(0.5, 1.5, (1000, 1))
    errors = np.square(small.astype(np.float16).astype(np.float64) - small).sum()
    assert errors == pytest.approx(rounding_energy(np.square(small).sum(axis=0), 1000, "float16")[0], rel=0.2)


def test_a_step_in_the_spectrum_ends_the_fit():
    law = np.arange(1.0, 61) ** -2.0
    assert spectral_decay(np.append(law, np.full(40, 1e-8))) == pytest.approx(2)
    assert spectral_decay(law) == pytest.approx(2) and algebraic_rank(np.append(law, np.full(40, 1e-8))) == 100


@functools.cache
def plain_pair(groups: frozenset) -> tuple:
    """Teacher, student and labels, and their audit at scale one."""
    teacher, student, labels = cloud(0, n=80), student_of(cloud(0, n=80), 1), np.arange(80) % 3
    return teacher, student, labels, audit(teacher, student, labels, settings=FEW, intervals=False, groups=groups)


@pytest.mark.parametrize(("scale", "without"), [(1e200, set()), (1e-200, {"probe"}), (1e300, {"probe"}), (5e-300, set())])
def test_scale_changes_nothing(scale, without):
    """Squares that overflow or vanish: the values of the pair at scale one, without a warning, and said."""
    groups = frozenset(GROUPS) - without  # probes take nine tenths of the time
    teacher, student, labels, plain = plain_pair(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = audit(scale * teacher, student, labels, settings=FEW, groups=groups)
        other = audit(teacher, scale * student, labels, settings=FEW, intervals=False, groups=groups)
    assert set(found) == set(plain) == set(other)
    for key in ORDER_FREE:
        assert found[key] == pytest.approx(plain[key], rel=1e-9) and other[key] == pytest.approx(plain[key], rel=1e-9), key
    for key in ("alignment.teacher_r2", "retrieval.mapped_recall_at_1"):  # of other folds
        assert found[key] == pytest.approx(plain[key], abs=0.15), key
    assert found.scaled["teacher"] and other.scaled["student"]
    assert found.notes[0].startswith("teacher: values were multiplied by 2^")
    assert found.curves["teacher.spectrum"].y == pytest.approx(scale * plain.curves["teacher.spectrum"].y, rel=1e-6, abs=0)


def test_float32_subnormals_are_measured():
    teacher = (1e-40 * cloud(0)).astype(np.float32)
    found = audit(teacher, teacher.copy(), settings=FEW, groups={"spectrum", "alignment", "retrieval"}, intervals=False)
    assert found["retrieval.recall_at_1"] == 1 and found["alignment.mean_cosine"] == pytest.approx(1)
    assert found["teacher.effective_rank"] == pytest.approx(audit_one(cloud(0), intervals=False)["teacher.effective_rank"],
                                                            rel=0.01)


def test_one_huge_row_among_small_ones_keeps_all_directions():
    z = np.array([[3e200, 4e200], [3e-200, 4e-200], [0.6, 0.8]])
    assert unit(z) == pytest.approx(np.tile([0.6, 0.8], (3, 1)))


def test_constant_dimensions_and_a_constant_student():
    teacher, labels = cloud(0), np.arange(200) % 2
    wide = np.hstack([teacher, np.full((200, 3), 0.1), np.zeros((200, 2))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = audit(wide, wide.copy(), labels, settings=FEW, intervals=False)
        collapsed = audit(teacher, np.tile(teacher[:1], (200, 1)), labels, settings=FEW)
    assert found["teacher.algebraic_rank"] == 12 and found["retrieval.recall_at_1"] == 1
    assert found["alignment.teacher_r2"] == pytest.approx(1) and found["probe.retention"] == 1
    assert "all embeddings are equal" in collapsed.left_out["student.effective_rank"]
    assert "similarity.linear_cka" in collapsed.left_out and collapsed["alignment.teacher_r2"] <= 0


def test_few_items_for_the_dimensions_have_a_ceiling():
    z = cloud(0, n=30, d=60)
    found = audit(z, z.copy(), groups="alignment")
    assert 0 < found["alignment.teacher_r2"] == found["alignment.teacher_r2_ceiling"] < 0.95
    assert audit(cloud(0), cloud(1), groups="alignment", intervals=False)["alignment.teacher_r2_ceiling"] == 1


def test_a_scan_tells_scale_and_precision():
    z = np.random.default_rng(0).normal(size=(50, 4))
    assert [scan(Rows(z.astype(t))).precision for t in ("f2", "f4", "f8")] == ["float16", "float32", "float64"]
    assert [scan(Rows(s * z)).exponent != 0 for s in (1.0, 1e-25, 1e25, 1e40, 1e-40)] == [False, False, False, True, True]
    assert Side(Rows(z)).precision == "float64"


def test_scatter_is_numpys_covariance(teacher):
    found = moments(teacher)
    np.testing.assert_allclose(found.scatter / (len(teacher) - 1), np.cov(teacher.T), rtol=1e-12)


def test_cross_scatter_is_a_block_of_the_joint_covariance(teacher, student):
    joint = np.cov(np.hstack([student, teacher]).T) * (len(teacher) - 1)
    d = student.shape[1]
    np.testing.assert_allclose(moments(student, teacher).scatter, joint[:d, d:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cuts", [[1], [3, 4, 100], list(range(1, 200))])
def test_any_cut_merges_to_the_same(teacher, student, cuts):
    parts = [moments(x, y) for x, y in zip(np.split(student, cuts), np.split(teacher, cuts), strict=True)]
    stream = Accumulator()
    for x, y in zip(np.split(student, cuts), np.split(teacher, cuts), strict=True):
        stream.add(x, y)
    for found in (merged(parts), stream.result()):
        np.testing.assert_allclose(found.scatter, moments(student, teacher).scatter, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.other_mean, teacher.mean(axis=0), rtol=1e-12)


def test_a_large_offset_costs_no_digits():
    """A sum of uncentred products would lose all of this variance."""
    x = np.random.default_rng(0).normal(size=(500, 3))
    shifted = Accumulator()
    for part in np.split(x + 1e7, 5):
        shifted.add(part)
    np.testing.assert_allclose(shifted.result().scatter, moments(x).scatter, rtol=1e-6, atol=1e-5)
    raw = (x + 1e7).T @ (x + 1e7) - 500 * np.outer((x + 1e7).mean(0), (x + 1e7).mean(0))
    assert np.abs(raw - moments(x).scatter).max() > 1


def test_small_singular_values_survive_that_float32_would_lose():
    s = np.array([1.0, 1e-3, 1e-5])
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 4)) - 0.0)[0][:, :3]
    u = np.linalg.qr(u - u.mean(axis=0))[0]
    z = u * s @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    found = np.sqrt(np.linalg.eigvalsh(moments(z).scatter)[::-1].clip(min=0))
    np.testing.assert_allclose(found, s, rtol=1e-4)
    in_float32 = np.linalg.eigvalsh(z.astype("f4").T @ z.astype("f4"))[::-1]
    assert abs(np.sqrt(abs(in_float32[2])) - 1e-5) > 1e-6


def test_row_keys_depend_on_values_not_on_dtype_or_place():
    z = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float16)
    keys = row_keys(z)
    assert (row_keys(z.astype(np.float64)) == keys).all()
    assert (row_keys(z[::-1]) == keys[::-1]).all()
    assert len(np.unique(keys)) == 500
    assert (row_keys(z, seed=1) != keys).all()
    assert row_keys(np.array([[0.0, 1.0]])) == row_keys(np.array([[-0.0, 1.0]]))


def test_content_order_is_unrelated_to_the_values():
    z = np.sort(np.random.default_rng(0).normal(size=(4000, 2)), axis=0)
    order = content_order(row_keys(z))
    assert sorted(order) == list(range(4000))
    assert abs(np.corrcoef(order, np.arange(4000))[0, 1]) < 0.06  # 4 standard errors of no correlation


def test_normalised_rows_have_unit_norm_in_every_block(teacher):
    rows = Rows(teacher, "l2")
    for where, block in rows.blocks(7):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1)
        np.testing.assert_allclose(block, teacher[where] / np.linalg.norm(teacher[where], axis=1, keepdims=True))
