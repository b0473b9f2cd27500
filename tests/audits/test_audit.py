"""The audit as a whole: what it gives back and refuses, what its numbers do not depend on; and what the self-test must find."""

from __future__ import annotations

import inspect
import json
import tracemalloc
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from builders import refused
from distillscope.audits.selftest import selftest
from distillscope.errors import UserError
from distillscope.measure import contrastive, rows, similarity, spectrum, tolerances
from distillscope.measure.audit import audit, audit_one, num_steps, prepare
from distillscope.measure.pool import Settings
from distillscope.measure.results import GROUPS
from distillscope.registry import measures


def made(n: int = 120, d: int = 24, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    teacher = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5 + 0.1
    teacher[:, :3] += 1.5 * np.eye(3)[labels]
    return teacher, teacher + 0.4 * rng.normal(size=(n, d)), labels


@pytest.fixture(scope="module")
def found():
    return audit(*made())


# -- what it gives back --------------------------------------------------------------------------------------------------


def test_the_keys_that_others_rely_on(found):
    promised = [
        "teacher.effective_rank", "student.effective_rank", "teacher.effective_rank_corrected", "teacher.rankme",
        "student.dims_90", "teacher.dims_95", "student.dims_99", "teacher.participation_ratio",
        "student.stable_rank", "teacher.spectral_decay", "student.twonn_dimension", "teacher.mean_energy",
        "student.uniformity", "teacher.uniformity", "alignment.mean_cosine", "alignment.student_variance_top20",
        "alignment.teacher_variance_captured", "alignment.teacher_r2", "similarity.linear_cka",
        "similarity.linear_cka_debiased", "similarity.procrustes", "similarity.rsa_spearman",
        "similarity.mutual_knn_10", "contrastive.infonce", "contrastive.ceiling", "contrastive.retained_share",
        "contrastive.saturated", "paper.infonce", "paper.infonce_ceiling", "paper.uniformity",
        "retrieval.recall_at_1", "retrieval.recall_at_5", "retrieval.recall_at_10", "probe.teacher.accuracy",
        "probe.student.accuracy", "probe.retention", "paper.probe.teacher.accuracy", "knn.teacher.accuracy",
        "knn.retention",
    ]
    assert not set(promised) - set(found.measured)
    curves = [
        "teacher.spectrum", "student.spectrum", "teacher.cumulative_variance", "student.cumulative_variance",
        "alignment.student_on_teacher", "alignment.teacher_on_teacher", "alignment.null",
        "alignment.teacher_r2_per_component", "contrastive.infonce_by_k", "contrastive.infonce_by_temperature",
        "teacher.rank_by_n", "student.rank_by_n",
    ]
    assert not set(curves) - set(found.curves)
    assert found.curves["teacher.spectrum"].unit == "singular value" and found.curves["teacher.spectrum"].x[0] == 1


def test_json_frame_and_text_say_the_same(found, tmp_path):
    read = json.loads(found.to_json(tmp_path / "audit.json"))
    assert json.loads((tmp_path / "audit.json").read_text()) == read
    frame = found.to_frame()
    for key, value in found.measured.items():
        assert set(read["measures"][key]) == {"value", "low", "high", "n", "definition", "unit"}
        assert read["measures"][key]["value"] == value.value == frame.loc[key, "value"]
    assert set(read["curves"]["alignment.null"]) >= {"x", "y", "low", "high", "unit"}
    assert read["repeats"] == {"rows": 120, "items": 120} and read["scaled"] == {} and read["notes"] == found.notes
    assert read["precision"] == {"teacher": "float64", "student": "float64"}
    text, page = repr(found), found._repr_html_()
    assert "effective_rank" in text and "retained" in text.split("\n")[0] and page.startswith("<table>")
    assert "zero_shot" in text, "what was left out is told"


def test_an_audit_is_a_mapping_from_keys_to_numbers(found):
    assert list(found) == list(found.keys()) == list(found.measured) and "probe.retention" in found and "probe" not in found
    assert isinstance(found, Mapping) and list(found.values()) == [v.value for v in found.measured.values()]
    assert dict(found) == dict(found.items()) and len(found) == len(found.measured) and found.get("probe", 0.5) == 0.5
    assert dict(found)["probe.retention"] == found["probe.retention"]
    with pytest.raises(KeyError) as error:
        found["student.effective_rnk"]
    assert isinstance(error.value, UserError) and "Did you mean student.effective_rank" in str(error.value)
    with refused(got="which was left"):
        found["zero_shot.retention"]
    with refused(advice="Did you mean teacher.rankme or student.rankme"):
        found["rankme"]


def frames():
    """Ways in which people hold embeddings and labels, each with the call that makes them of arrays."""
    names = np.array(["cat", "dog", "owl"])
    yield "pandas", lambda z: pd.DataFrame(z), lambda c: pd.Series(pd.Categorical(names[c]))
    yield "nullable", lambda z: pd.DataFrame(z).astype("Float64"), lambda c: pd.Series(c, dtype="Int64")
    yield "vectors", lambda z: pd.Series(list(z)), lambda c: pd.Categorical(c)
    yield "torch", lambda z: torch.tensor(z, requires_grad=True), lambda c: torch.tensor(c)
    yield "polars", lambda z: polars().DataFrame(z), lambda c: polars().Series(names[c], dtype=polars().Categorical)
    yield "polars vectors", lambda z: polars().Series(z.tolist()), lambda c: polars().Series(names[c])


def polars():
    return pytest.importorskip("polars")


@pytest.mark.parametrize(("rows", "classes"), [pytest.param(*ways, id=name) for name, *ways in frames()])
def test_frames_tensors_columns_and_categories_are_taken_as_the_arrays_they_hold(rows, classes):
    teacher, student, labels = made()
    asked = dict(groups={"similarity", "knn"}, intervals=False)
    plain = audit(teacher, student, labels, **asked)
    found = audit(rows(teacher), rows(student), classes(labels), **asked)
    assert {key: found[key] for key in found} == {key: plain[key] for key in plain}


def tables():
    """Kinds of frame that name their columns, each with the call that makes it of one of pandas."""
    yield "pandas", lambda frame: frame
    yield "polars", lambda frame: polars().from_pandas(frame)
    yield "arrow", pa.Table.from_pandas


@pytest.mark.parametrize("made_of", [pytest.param(way, id=name) for name, way in tables()])
@pytest.mark.parametrize("beside", ["id", "label", "score", "serial"])
def test_no_other_column_of_a_frame_becomes_a_dimension(made_of, beside):
    teacher, student, _ = made()
    values = {"id": np.arange(120), "label": np.arange(120) % 3 + 0.0, "score": teacher[:, 0], "serial": np.arange(120)}
    plain, more = (pd.DataFrame(z).add_prefix("e") for z in (teacher, student))
    more.insert(0, beside, values[beside])
    with refused(where="student", got=f"'{beside}'", advice=(beside, "drop")):
        audit(made_of(plain), made_of(more), intervals=False, groups="alignment")
    with refused(where="train_student", got=f"'{beside}'"):
        audit(teacher, student, np.arange(120) % 2, train_teacher=teacher, train_student=made_of(more),
              train_labels=np.ma.array(np.arange(120) % 2, mask=np.arange(120) < 3), intervals=False)


@pytest.mark.parametrize("made_of", [pytest.param(way, id=name) for name, way in tables()])
def test_whole_numbers_that_are_dimensions_are_taken_from_a_frame(made_of):
    """A dimension that is always off is read from a table of text as a column of whole zeros."""
    teacher, student, _ = made()
    student[:, 3] = 0
    plain = audit(teacher, student, intervals=False, groups="alignment").to_dict()
    for frame in (pd.DataFrame(student).add_prefix("e").astype({"e3": int}),
                  pd.DataFrame(student).rename(columns=str).astype({"3": int})):
        assert audit(teacher, made_of(frame), intervals=False, groups="alignment").to_dict() == plain
    two = pd.DataFrame({"x": student[:, 0], "y": student[:, 1]})
    assert audit(teacher, made_of(two), intervals=False, groups="spectrum")["student.effective_rank"] > 1
    numbered = pd.DataFrame(student).rename(columns=str)
    numbered["0"] = np.arange(120)  # what read_csv makes of a table without a header whose first column is an id
    with refused(got="'0'"):
        audit(teacher, made_of(numbered), intervals=False)


def test_an_index_of_pandas_in_another_order_is_not_paired_by_place():
    teacher, student, labels = made()
    t, s, c = pd.DataFrame(teacher, index=[f"i{i}" for i in range(120)]), pd.DataFrame(student), pd.Series(labels)
    s.index = c.index = t.index
    for turned in ((t, s[::-1], c), (t, s, c[::-1])):
        with refused(got="same index in another order", advice=".loc[teacher.index]"):
            audit(*turned, intervals=False)
    asked = dict(groups={"alignment"}, intervals=False)
    assert audit(t, s[::-1].loc[t.index], c, **asked).to_dict() == audit(t, s.reset_index(drop=True), c, **asked).to_dict()


def test_one_group_is_a_group_and_labels_of_pandas_are_labels():
    teacher, student, labels = made()
    alone = audit(teacher, student, groups="alignment", intervals=False)
    assert {key.split(".")[0] for key in alone} == {"alignment"}
    named = audit(teacher, student, labels, groups="knn", intervals=False)
    for held in (pd.Categorical(labels), pd.Series([f"class {k}" for k in labels], dtype=object), labels.astype(object)):
        assert audit(teacher, student, held, groups="knn", intervals=False)["knn.retention"] == named["knn.retention"]


def test_groups_choose_and_intervals_can_be_skipped(found):
    some = audit(*made()[:2], groups={"alignment", "paper"}, intervals=False)
    assert {key.split(".")[0] for key in some.measured} == {"alignment", "paper"}
    assert all(v.low is None for v in some.measured.values())
    assert some["alignment.teacher_r2"] == found["alignment.teacher_r2"]


def test_one_side_alone_reads_what_it_reads_in_a_pair(found):
    alone = audit_one(made()[0])
    assert {key.split(".")[0] for key in [*alone.measured, *alone.curves]} == {"teacher"}
    for key, value in alone.measured.items():
        pair = found.measured[key]
        assert (value.n, value.unit, value.definition) == (pair.n, pair.unit, pair.definition), key
        for mine, theirs in ((value.value, pair.value), (value.low, pair.low), (value.high, pair.high)):
            assert mine == theirs or mine == pytest.approx(theirs, rel=1e-9), key
    assert set(audit_one(made()[1], side="student", intervals=False).measured) == {k.replace("teacher", "student", 1)
                                                                                 for k in alone.measured}


def test_a_prepared_teacher_changes_nothing(found):
    teacher, student, labels = made()
    prepared = prepare(teacher)
    assert audit(prepared, student, labels).to_json() == found.to_json()
    assert audit_one(prepared)["teacher.rankme"] == found["teacher.rankme"]
    with refused(where="teacher", got="another"):
        audit(prepared, student, seed=3)


def test_normalising_is_unit_rows():
    teacher, student, _ = made()
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (teacher, student)]
    groups = {"spectrum", "alignment"}
    asked = audit(teacher, student, normalize="l2", groups=groups, intervals=False)
    given_unit = audit(*unit, groups=groups, intervals=False, settings=Settings())
    for key in ("student.effective_rank", "alignment.mean_cosine", "alignment.student_variance_top20", "teacher.mean_energy"):
        assert asked[key] == pytest.approx(given_unit[key], rel=1e-9), key
    assert asked["teacher.effective_rank"] != pytest.approx(audit_one(teacher)["teacher.effective_rank"], rel=1e-3)


# -- what its numbers do not depend on -----------------------------------------------------------------------------------


def same(first, second, rel=tolerances.REORDERED, skip=("paper.",)):
    assert set(first.measured) == set(second.measured)
    for key, value in first.measured.items():
        if not key.startswith(skip) and not key.endswith("gradient_norm"):  # where lbfgs stops is chaotic in the last digits
            assert second[key] == pytest.approx(value.value, rel=rel, abs=rel), key


def test_row_order(found):
    teacher, student, labels = made()
    order = np.random.default_rng(1).permutation(len(teacher))
    shuffled = audit(teacher[order], student[order], labels[order])
    same(found, shuffled, rel=1e-7)
    key = "teacher.effective_rank"
    assert shuffled.measured[key].low == pytest.approx(found.measured[key].low, rel=1e-7)


def test_block_size(found, monkeypatch):
    monkeypatch.setattr(rows.Rows, "block_rows", lambda self: 17)
    same(found, audit(*made()), skip=("none",))


def test_memory_layout_and_dtype(tmp_path):
    teacher, student, labels = (a.astype(np.float16) if a.dtype.kind == "f" else a for a in made())
    base = audit(teacher, student, labels, intervals=False)
    paths = [tmp_path / "t.npy", tmp_path / "s.npy"]
    for path, z in zip(paths, (teacher, student), strict=True):
        np.save(path, z)
    same(base, audit(*(np.load(p, mmap_mode="r") for p in paths), labels, intervals=False), skip=("none",))
    same(base, audit(teacher.astype("f4"), np.asfortranarray(student.astype("f8")), labels, intervals=False), skip=("none",))


def test_tensors_are_arrays(found):
    torch = pytest.importorskip("torch")
    teacher, student, labels = made()
    tensors = torch.tensor(teacher, requires_grad=True), torch.tensor(student), torch.tensor(labels)
    groups = set(GROUPS) - {"probe"}
    assert audit(*tensors, groups=groups).to_json() == audit(teacher, student, labels, groups=groups).to_json()
    half = audit_one(torch.tensor(teacher).to(torch.bfloat16), intervals=False)
    assert half["teacher.effective_rank"] == pytest.approx(found["teacher.effective_rank"], rel=tolerances.BFLOAT16)


def test_thread_count(found):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(2):
        same(found, audit(*made()), skip=("none",))


def test_float16_storage_costs_little(found):
    halves = audit(*(z.astype(np.float16) for z in made()[:2]), groups={"spectrum"}, intervals=False)
    for key in ("teacher.effective_rank", "student.participation_ratio", "teacher.mean_energy", "student.uniformity"):
        assert halves[key] == pytest.approx(found[key], rel=tolerances.FLOAT16), key


def test_more_rows_than_memory_should_hold(tmp_path):
    """60,000 x 64 rows stay on disk: beside them the audit holds blocks and d x d, not n x d in float64."""
    n, d = 60_000, 64
    files = []
    for name in ("t", "s"):
        z = np.lib.format.open_memmap(tmp_path / f"{name}.npy", mode="w+", dtype=np.float16, shape=(n, d))
        rng = np.random.default_rng(len(files))
        for start in range(0, n, 6000):
            z[start : start + 6000] = rng.normal(size=(6000, d))
        z.flush()
        files.append(tmp_path / f"{name}.npy")
    settings = Settings(max_items=256, null_items=256, infonce_items=2048, rsa_items=128)
    groups = {"spectrum", "alignment", "contrastive", "paper", "similarity"}
    tracemalloc.start()
    found = audit(*(np.load(f, mmap_mode="r") for f in files), groups=groups, intervals=False, settings=settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["teacher.effective_rank"] == pytest.approx(64, rel=0.01) and found.measured["teacher.rankme"].n == n
    assert peak < n * d * 8 * 0.9 + 2**24, f"{peak / 2**20:.0f} MiB"


# -- what it refuses -----------------------------------------------------------------------------------------------------


def broken(change):
    teacher, student, labels = made()
    return change(teacher.copy(), student.copy(), labels.copy())


def with_bad_value(t, s, y):
    s[7, 2], s[9, 0] = np.nan, np.inf
    return (t, s), {}


def with_zero_rows(t, s, y):
    t[[4, 8]] = 0
    return (t, s), {}


@pytest.mark.parametrize(("change", "message"), [
    (lambda t, s, y: ((t, s[:-1]), {}), "student: expected 120 rows like the teacher, got 119"),
    (with_bad_value, "student: expected finite values, got 2 NaN or infinite, first in row 7"),
    (with_zero_rows, "teacher: expected rows with a direction, got 2 all-zero rows, first row 4"),
    (lambda t, s, y: ((t.astype(int), s), {}), "teacher: expected an array of floats, got dtype int64"),
    (lambda t, s, y: ((t.astype(object), s), {}), "teacher: expected an array of floats, got dtype object"),
    (lambda t, s, y: (([[1.0], [1.0, 2.0]], s), {}), "teacher: expected an array of shape"),
    (lambda t, s, y: ((t[0], s), {}), r"teacher: expected an array of shape \(items, dimensions\), got shape \(24,\)"),
    (lambda t, s, y: ((t[:9], s[:9]), {}), "teacher: expected at least 10 rows, got 9"),
    (lambda t, s, y: ((t[:, :1], s), {}), "teacher: expected at least 2 dimensions, got 1"),
    (lambda t, s, y: ((t, s, y[:-1]), {}), r"labels: expected one label per item, shape \(120,\), got shape \(119,\)"),
    (lambda t, s, y: ((t, s, y * 0), {}), "labels: expected at least two classes, got one"),
    (lambda t, s, y: ((t, s, y.astype("M8[s]")), {}),
     "labels: expected whole numbers or text, got dtype datetime64"),
    (lambda t, s, y: ((t, s, np.where(y == 1, np.inf, y)), {}),
     "labels: expected whole numbers or text, got inf"),
    (lambda t, s, y: ((t * 0 + 1, s), {}), r"teacher: expected at least 10 distinct rows, got 1 among 120 \(all are equal\)"),
    (lambda t, s, y: ((t[y], s), {}),
     r"teacher: expected at least 10 distinct rows, got 3 among 120 \(the other 117 repeat them"),
    (lambda t, s, y: ((t, s, y), {"train_teacher": 1e200 * t, "train_student": s, "train_labels": y}),
     "train_teacher: expected values of about the size of teacher"),
    (lambda t, s, y: ((t, s, y), {"text": t[:2]}), "labels: expected whole numbers from 0 to 1, rows of text, got 0 to 2"),
    (lambda t, s, y: ((t, s), {"text": t[:3]}), "labels: expected labels that index the rows of text, got nothing"),
    (lambda t, s, y: ((t, s, y), {"train_teacher": t, "train_labels": y}), "train_student: expected all of train_teacher"),
    (lambda t, s, y: ((t, s, y), {"train_teacher": t[:, :5], "train_student": s, "train_labels": y}),
     "train_teacher: expected 24 dimensions like the teacher, got 5"),
    (lambda t, s, y: ((t, s), {"train_teacher": t, "train_student": s, "train_labels": y}), "labels: expected labels of the"),
    (lambda t, s, y: ((t, s), {"normalize": "L2"}), "normalize: expected a known normalization, got 'L2'"),
    (lambda t, s, y: ((t, s), {"groups": {"spectra"}}), "groups: .*got 'spectra'. Did you mean 'spectrum'"),
])
def test_bad_input_is_one_line(change, message):
    args, kwargs = broken(change)
    with pytest.raises(UserError, match=message) as error:
        audit(*args, **kwargs)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


@hypothesis_settings(max_examples=25, deadline=None)
@example(n=11, d=2, dim=6, rank=1, num=2, seed=0, probes=True)  # one fold has more rows than dimensions, others have not
@given(n=st.integers(10, 40), d=st.integers(2, 12), dim=st.integers(2, 12), rank=st.integers(1, 3), num=st.integers(2, 6),
       seed=st.integers(0, 1000), probes=st.sampled_from([False] * 7 + [True]))
def test_any_small_or_degenerate_data_is_measured_or_left_out(n, d, dim, rank, num, seed, probes):
    """Few rows, repeated rows, constant or low-rank embeddings: numbers that are finite, or the reason why not."""
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d)) + 1
    student = np.repeat(rng.normal(size=(-(-n // 3), dim)), 3, axis=0)[:n]
    teacher[: n - 10] = teacher[0]
    groups = set(GROUPS) if probes else set(GROUPS) - {"probe"}  # probes take nine tenths of the time
    found = audit(teacher, student, np.arange(n) % num, groups=groups, settings=Settings(null_draws=3))
    assert all(np.isfinite(v.value) for v in found.measured.values())
    assert all(v.low is None or np.isfinite([v.low, v.high]).all() for v in found.measured.values())
    assert found.measured and all(found.left_out.values())
    json.loads(found.to_json())


@pytest.mark.parametrize("settings", [{}, {"groups": {"spectrum", "knn"}}, {"intervals": False}])
def test_every_step_of_an_audit_is_told(settings):
    done = []
    z = np.random.default_rng(0).normal(size=(60, 4))
    audit(z, z[:, ::-1], np.arange(60) % 3, advance=done.append, **settings)
    assert sum(done) == num_steps(settings.get("groups"), settings.get("intervals", True))


def test_every_known_answer_comes_out():
    checks = selftest()
    assert not [str(check) for check in checks if not check.passed]
    covered = {measures.facts(m.removeprefix("teacher.").split(" at ")[0]).group
               for m in (c.measure for c in checks) if m.removeprefix("teacher.") in measures}
    assert covered == set(GROUPS)


@pytest.mark.parametrize(("module", "name"), [(spectrum, "effective_rank"), (similarity, "linear_cka_debiased"),
                                              (contrastive, "infonce")])
def test_a_wrong_measure_is_found(monkeypatch, module, name):
    right = getattr(module, name)
    key = next(k for k in measures if measures[k] is right)

    def wrong(*args):
        return right(*args) * 1.05 + 0.05

    wrong.__signature__, wrong.__doc__ = inspect.signature(right), right.__doc__
    monkeypatch.setitem(measures._parts, key, wrong)
    failed = [check for check in selftest() if not check.passed]
    assert failed and all(check.measure.endswith(name) for check in failed) and str(failed[0]).startswith("FAIL")


def test_labels_that_all_differ_leave_out_what_is_learned_from_other_items():
    teacher, student, _ = made()
    own = np.arange(len(teacher))
    found = audit(teacher, student, own, groups={"probe", "knn", "few"}, intervals=False)
    assert not list(found) and "a class of its own" in found.left_out["probe.teacher.accuracy"]
    assert found.left_out["knn.teacher.accuracy"] == found.left_out["probe.teacher.accuracy"]
    trained = audit(teacher, student, own, train_teacher=teacher, train_student=student, train_labels=own, groups={"knn"},
                    intervals=False)
    assert "knn.teacher.accuracy" in trained
