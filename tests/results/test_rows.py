"""Conditions, keys of quantities and names of arms: each taken apart and put together in one place."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from builders.planted import planted_run, study_with
from builders.synthetic_run import SIGMAS, make_run
from builders.tiny import tiny_values
from distillscope import audit
from distillscope.compare.runs import compare_runs
from distillscope.config.load import load_preset, parse_study, preset_names, study_from
from distillscope.config.study import Stress
from distillscope.data.source import Source
from distillscope.facts import Shown
from distillscope.registry import measures, stresses
from distillscope.report.tables import build_table, terminal_table, to_markdown
from distillscope.report.terminals import audit_table
from distillscope.results.arms import arms_of, distinct
from distillscope.results.keys import KEYS, facts_of
from distillscope.results.models import settings_of
from distillscope.results.rows import CLEAN, COLUMNS, Condition, Row, in_order, tidy
from distillscope.results.run import read_run
from distillscope.results.run_files import read_results
from distillscope.results.rundir import write_results
from distillscope.results.summary import Summary
from distillscope.stress.subject import Subject, rehearse, run_stresses


def source(split: str, n: int = 24, side: int = 8) -> Source:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)
    return Source("made", split, np.array([f"{split}/{i}" for i in range(n)]), pixels.__getitem__, np.arange(n) % 3,
                  ("a", "b", "c"), pixels)


@pytest.fixture(scope="module")
def produced() -> set[str]:
    """Every condition that a stress of the program gives, of either side and place, and those of the builders' runs."""
    train, test, probe = source("train"), source("test"), type("Probe", (),
                                                               {"predict": lambda self, z: np.zeros(len(z), int)})()
    model = Subject("student", lambda items, perturbation, label: np.random.default_rng(0).normal(size=(len(items), 4)),
                    {"probe": probe, "paper.probe": probe}, train, lambda z, labels: {"probe": probe})
    found: set[str] = {CLEAN, *(f"noise={s}" for s in SIGMAS), *planted_run().results["condition"].unique()}
    for name in set(stresses) - {"gradient", "latency", "attack"}:
        places = [{"where": "source"}, {"where": "input"}] if "where" in stresses.settings(name) else [{}]
        more = {"corruptions": {"names": ("fog", "brightness"), "severities": (1, 5)},
                "top_k": {"students": True}}.get(name, {})
        for place in places:
            asked = [Stress(name=name, **more, **place)]
            found |= {row.condition for row in run_stresses(asked, model, test, 0).rows}
            found |= set(rehearse(asked, train, test, 0)[1].conditions)
    return found | {Condition.of("attack", "linf", 0.5), Condition.unchanged("attack")}


def test_every_condition_is_its_parts(produced):
    assert len(produced) > 40
    assert {"fourier=low", "top_k=whitened/0.1", "band=0-0.25/0.1@input", "corruption=fog/5", "noise_probe=0.2"} <= produced
    for text in produced:
        condition = Condition.parse(text)
        assert Condition.of(*condition.parts) == condition == text and str(Condition.parse(str(condition))) == text
        assert condition.kind == text.partition("=")[0]
        assert condition.reference.reference == condition.reference and condition.reference.strength is None


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab=/@-.0159e~ é", max_size=14))
def test_text_of_any_form_comes_back(text):
    condition = Condition.parse(text)
    assert Condition.of(*condition.parts) == text
    assert condition.strength is None or isinstance(condition.strength, float)
    assert condition.bounds is None or len(condition.bounds) == 2


@pytest.mark.parametrize(("text", "kind", "what", "strength", "place", "sigma"), [
    ("clean", "clean", "", None, "", 0.0), ("noise=0.05", "noise", "", 0.05, "", 0.05),
    ("noise=x", "noise", "", None, "", None),
    ("noise_probe=0", "noise_probe", "", 0.0, "", None), ("band=0.5-1.5/0.1@input", "band", "0.5-1.5", 0.1, "input", None),
    ("corruption=mean", "corruption", "mean", None, "", None),
    ("corruption=jpeg_compression/4", "corruption", "jpeg_compression", 4.0, "", None),
    ("attack=linf/0.5", "attack", "linf", 0.5, "", None), ("top_k=all/0.2", "top_k", "all", 0.2, "", None),
    ("fourier=mid", "fourier", "mid", None, "", None),
    ("blur=gaussian/3", "blur", "gaussian", 3.0, "", None), ("rotated", "rotated", "", None, "", None)])
def test_parts(text, kind, what, strength, place, sigma):
    found = Condition.parse(text)
    assert (found.kind, found.what, found.strength, found.place, found.sigma) == (kind, what, strength, place, sigma)


def test_bands_of_any_width():
    assert Condition.parse("band=1e-05-0.25/0.1").bounds == (1e-05, 0.25)
    assert Condition.band(0, 0.25, 0.1).bounds == (0.0, 0.25) and Condition.unchanged("band").bounds is None


def test_order():
    assert in_order(["top_k=4", "noise=0.2", "clean", "noise=0.1",
                     "band=none"]) == ["clean", "noise=0.1", "noise=0.2", "band=none", "top_k=4"]


def test_a_row_has_the_columns_that_are_its_own():
    head = dict.fromkeys(set(COLUMNS) - set(Row._fields), "")
    (line,) = tidy(head, [("m", "clean", None, 1.0, 2, "dims")])
    assert set(line) == set(COLUMNS) and line["n"] == 2
    assert Row.clean("m", 1.0, 2, "dims") == ("m", "clean", None, 1.0, 2, "dims")


@pytest.fixture
def same_sign():
    """The whole of what a contributor writes: a measure that says how it is shown."""
    list(measures)  # all of the program's own are there

    @measures.register("similarity.same_sign", unit="share", group="similarity", title="same sign", percent=True, digits=1,
                       better="higher", column=True)
    def share(paired_cosines: np.ndarray) -> float:
        """Share of the items whose two embeddings point to one side."""
        return float((paired_cosines > 0).mean())

    yield "similarity.same_sign"
    measures._parts.pop("similarity.same_sign")


def printed(part) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(part)
    return console.file.getvalue()


def with_measure(run, measure, values):
    """The synthetic run with one number more in each trial, written as a study writes it."""
    for folder in sorted((run / "trials").iterdir()):
        frame = read_results(folder / "results.csv")
        head = {k: v for k, v in frame.iloc[0].items() if k not in Row._fields}
        rows = [{**r, "draw": r["draw"]} for r in frame.to_dict("records")]
        done = json.loads((folder / "complete.json").read_text())
        more = tidy(head, [Row.clean(measure, values[head["seed"]], 500, "share")])
        write_results(folder, [*rows, *more], json.loads((folder / "curves.json").read_text()), done)
    return run


def test_a_new_measure_is_shown_everywhere(same_sign, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4))
    found = audit(x, x, groups=["similarity"], intervals=False)
    assert found[same_sign] == 1.0
    assert "same sign" in printed(audit_table(found, full=True)) and "100.0" in printed(audit_table(found, full=True))

    runs = [with_measure(make_run(tmp_path / name, students=("S",), seeds=(1, 2), dim=8, epochs=1, labels=False), same_sign,
                         {1: start, 2: start + 0.02}) for name, start in (("a", 0.5), ("b", 0.75))]
    run = read_run(runs[0])
    table = build_table(run, settings_of(run), Summary.of(run))
    assert table.head[-1] == "same sign" and "51.0 ± 1.4" in to_markdown(table)
    assert "same sign" in printed(terminal_table(runs[0]))
    (difference,) = [d for d in compare_runs(runs).differences if d.measure == same_sign]
    assert difference.quantity.title == "same sign" and difference.quantity.unit == "points"
    assert difference.quantity.scale * difference.value == pytest.approx(25.0)


def test_what_has_no_title_is_shown_by_its_name():
    assert facts_of("student.stable_rank") == Shown(title="stable rank") and not facts_of("student.stable_rank").column


def test_a_title_has_one_owner_and_fewer_decimals_where_there_is_little_room():
    assert not set(KEYS) & {name for name in measures if measures.facts(name).title}
    for facts in (*KEYS.values(), *map(measures.facts, measures)):
        assert facts.num_few <= facts.digits and facts.percent == (facts.difference == "points")
    assert all(facts.title for facts in KEYS.values())


def only(**arm):
    study = study_with(arms=[{"name": "a", **arm}], training={"epochs": 5}, target={"name": "pca", "dim": 8})
    (found,) = arms_of(study).values()
    return found


@pytest.mark.parametrize("objective",
                         ["cosine", ["cosine"], {"name": "cosine"}, [{"name": "cosine", "weight": 1.0, "projected": True}],
                                       ["cosine", {"name": "mse", "weight": 0}]])
def test_spellings_of_one_loss_are_one(objective):
    assert only(objective=objective).key == only().key


def test_a_part_of_another_setting_is_another_arm():
    plain = only()
    for other, keys in ((only(objective="mse"), {"terms"}), (only(objective={"name": "cosine", "weight": 2}), {"terms"}),
                        (only(target={"name": "pca", "dim": 4}), {"target"}), (only(view="crop_flip"), {"view"}),
                        (only(training={"epochs": 6}), {"training"}), (only(projector="linear"), {"rest"}),
                        (only(objective="mse", view="noise"), {"terms", "view"})):
        assert plain.differs(other) == keys and plain.key != other.key
    assert plain.differs(only(name="b", students=["S"], seeds=[1])) == set()


def test_what_a_view_shows_belongs_to_the_view():
    assert only(view="noise", view_target="same").differs(only(view={"name": "noise"})) == set()
    assert only(view="noise", view_target="clean").differs(only(view="noise")) == {"view"}
    assert only(view="noise", view_bank=2).differs(only(view="noise")) == {"view"}
    assert only(view={"name": "noise", "sigma": 0.3}).view_name == "noise"
    assert only(view_target="clean").view is None  # without a view it says nothing


def test_what_is_off_is_as_if_it_were_not_written():
    assert only(projector=None, student={}).key == only().key


def test_the_order_of_terms_is_no_difference():
    queued = {"name": "infonce", "queue": 8}
    assert only(objective=["mse", queued]).terms == only(objective=[queued, "mse"]).terms
    assert only(objective=["cosine", "infonce"]).families == {"cosine", "contrastive"}
    assert only(objective="of my own").families == {"other"}
    assert only(objective=["mse", {"name": "cosine", "weight": 0.5}]).objective == "0.5 cosine + mse"


def test_epochs_alone():
    plain = only()
    assert plain.only_epochs_differ(only(training={"epochs": 20}))
    assert not plain.only_epochs_differ(only(training={"epochs": 20, "batch_size": 8}))
    assert not plain.only_epochs_differ(only(training={"epochs": 20}, objective="mse"))
    assert not plain.only_epochs_differ(plain)


def test_a_remedy_makes_another_arm_of_each():
    study = study_with(arms=[{"name": "a"}, {"name": "b", "objective": "mse"}],
                       remedies=[{"name": "bn", "label": "norms"}, "bn"])
    found = arms_of(study)
    assert list(found) == ["a", "a+norms", "a+bn", "b", "b+norms", "b+bn"]
    assert found["a+norms"].remedied == "bn" and found["a"].remedied is None
    assert found["a+norms"].differs(found["a"]) == {"rest"}
    assert found["a+norms"].key == found["a+bn"].key  # a label is a name
    assert [a.name for a in distinct(found.values())] == ["a", "a+norms", "b", "b+norms"]


def test_a_study_without_arms_trains_cosine():
    assert [a.objective for a in arms_of(study_with()).values()] == ["cosine"]


@pytest.mark.parametrize("name", preset_names())
def test_presets_as_written_and_as_dumped_hold_the_same_arms(name):
    """A default that a later version writes into study.yaml must not make another arm of an old one."""
    study = load_preset(name)
    found = arms_of(parse_study(study.dump()))
    plain = [a for a in found.values() if a.rest == "{}" and a.view is None and [t.name for t in a.terms] == ["cosine"]]
    assert plain and plain[0].default_target and plain[0].default_training


def test_a_dumped_arm_is_the_one_that_was_written():
    values = tiny_values(arms=[{"name": "a"}, {"name": "b", "view": "noise", "view_target": "clean"}])
    dumped, written = arms_of(parse_study(study_from(values).dump())), arms_of(parse_study(values))
    assert dumped["b"].differs(dumped["a"]) == written["b"].differs(written["a"]) == {"view"}
