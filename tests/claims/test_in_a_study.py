"""A tiny study that runs every control, from training to the verdicts; and the code of docs/extending.md and docs/claims.md."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from builders import refused
from builders.planted import PARAMETERS, STUDY, planted, planted_run
from builders.tiny import scratch, tiny_study, tiny_values
from distillscope.claims.rank_robustness import controls
from distillscope.claims.results import Undecided, results_of
from distillscope.claims.verdict import ORDER, decide, decide_results, decided
from distillscope.config.load import load_preset, study_from
from distillscope.errors import UserError
from distillscope.facts import ClaimFacts
from distillscope.measure.audit import audit
from distillscope.registry import KINDS, claims, objectives, remedies
from distillscope.report.claims import decide_claims
from distillscope.report.page import STUDY as STUDY_SECTIONS
from distillscope.report.page import environment
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary, summarise
from distillscope.study.run import run_study
from distillscope.targets.transforms import check_target, fit_target

ARMS = [
    {"name": "a"},
    {"name": "b", "objective": "mse", "students": ["S"]},
    {"name": "c", "objective": "cross_entropy", "students": ["S"]},
    {"name": "d", "objective": ["cosine", {"name": "infonce", "weight": 1.0}], "students": ["S"]},
    {"name": "e", "objective": "mse", "target": {"name": "whiten", "dim": 24}, "students": ["S"]},
    {"name": "f", "view": {"name": "noise", "sigma": 0.3}, "view_target": "clean", "students": ["S"]},
]
ACCURACY = "paper.probe.student.accuracy"
NOISES = ("noise=0.05", "noise=0.1", "noise=0.2", "band=0-0.25/0.1", "band=0.75-1/0.1")
PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILES = {"measure": "distillscope.measure.median_cosine", "objective": "distillscope.objectives.log_cosh",
         "projector": "distillscope.objectives.normed", "target": "distillscope.targets.rescaled",
         "view": "distillscope.data.grey",
         "corruption": "distillscope.data.darkness", "stress": "distillscope.stress.mirror",
         "remedy": "distillscope.remedies.rounded", "teacher": "distillscope.teachers.thumbnails",
         "student": "distillscope.students.two_layers", "data_set": "distillscope.data.stripes",
         "claim": "distillscope.claims.size_pays", "section": "distillscope.report.context.durations"}
CLAIMS_PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text()


@pytest.fixture(scope="module", params=[2, pytest.param(5, marks=pytest.mark.minutes)], ids=["two seeds", "five"])
def run(request):
    study = tiny_study(
        students=[{"name": "paper_cnn", "label": s, "width": w, "image_size": 16} for s, w in (("S", 1), ("L", 2))],
        arms=ARMS, seeds=list(range(1, request.param + 1)), target={"name": "pca", "dim": 32},
        noise={"sigmas": [0.1, 0.5], "draws": 1},
        stresses=[{"name": "band_noise", "bands": [[0, 0.5], [0.5, 1]], "sigmas": [0.1], "items": 0},
                  {"name": "top_k", "ks": [4, 16], "sigmas": [0.5], "own_train": True, "parts": 5},
                  {"name": "gradient", "items": 16}],
        remedies=["bn"], training={"epochs": 2, "batch_size": 32},
        **({"limit": 100, "limit_test": 40} if request.param == 2 else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        return run_study(study, scratch() / f"claims{request.param}", jobs=1, report=False)


def test_every_control_reaches_its_claim(run):
    """What is left undecided is so for its seeds, its images or its spread: never for a name that was not found."""
    (decision,) = decide_claims([run.path]).decisions
    reasons = {v.id: v.reason for v in decision.verdicts if v.p is None}
    if len(run.study.seeds) == 2:
        lacking = ("seeds, and this claim needs", "needs 1,024 test images", "says nothing about robustness",
                   "little to recover", "learned less than 90 %", "tenths, and this claim needs",
                   "no more dimensions than the limit")
        assert not {name: reason for name, reason in reasons.items() if not any(known in reason for known in lacking)}
        return
    assert "needs 10" in reasons.pop("inverse-scaling")
    assert "needs 1,024 test images" in reasons.pop("information")
    for known in ("says nothing about robustness", "little to recover", "no more dimensions than the limit",
                  "learned less than", "tenths, and this claim needs"):
        reasons = {name: reason for name, reason in reasons.items() if known not in reason}
    assert not reasons
    assert decision.tested >= 4
    collapse = decision["collapse"]
    assert collapse.n == 5 and any("R^2" in s.endpoint for s in collapse.secondary)
    robust, filters = decision["rank-robustness"], decision["low-pass"]  # where noise does something to so small a study
    assert robust.p is None or "the rank of S" in robust.scope["k"]
    assert filters.p is None or any("gradient" in s.endpoint for s in filters.secondary)


def test_the_projection_control_runs_on_the_studys_own_target_alone(run):
    results = run.results
    rows = results[results["measure"].str.startswith("top_k.")]
    assert set(rows["student"]) == {"teacher"} and set(rows["target"]) == {"pca32"}
    assert set(rows["condition"]) >= {"top_k=4", "top_k=4/0.5", "top_k=all/0.5", "top_k=whitened/0.5"}


def test_train_ranks_stand_beside_and_never_among_the_test_rows(run):
    everything = run.all_results
    train = everything[everything["measure"] == "train.effective_rank"]
    assert len(train) == len(run.study.seeds) * (len(ARMS) + 1) and (train["n"] == run.study.limit - 40).all()
    assert set(train["split"]) == {"train"}
    results, num_tested = run.results, run.study.limit_test
    rows = results[results["measure"] == "student.effective_rank"]
    assert set(results["split"]) == set(rows["split"]) == {"test"} and (rows["n"] == num_tested).all()
    shown = read_run(run.path)
    assert shown.split == "test"
    quantities = summarise(shown.all_results)
    of_train = quantities.query("measure == 'train.effective_rank' and split == 'train'")
    assert of_train["n_seeds"].eq(len(run.study.seeds)).sum() == len(ARMS) + 1
    summary, model = Summary.of(shown), settings_of(shown)[0].students[0]
    assert summary.get(model, "student.effective_rank").n == num_tested  # the tables show the test images
    assert set(summary.per_seed(model, "student.effective_rank").values()) <= set(rows["value"])


def test_r2_is_logged_at_every_epoch(run):
    log = read_run(run.path).training
    assert log["teacher_r2"].notna().all() and log.groupby(["arm", "student", "seed"]).size().eq(2).all()  # epochs


def everywhere(value: float) -> dict:
    return {("*", "*", ACCURACY, c): value for c in NOISES}


@pytest.mark.parametrize("name", ["inverse-scaling", "low-pass", "bottleneck"])
@pytest.mark.parametrize(("level", "why"), [(0.705, "less than"), (0.105, "leaves only chance")])
def test_noise_that_does_nothing_or_leaves_nothing(name, level, why):
    teacher = {("pca64", "knn.chance", "clean"): 0.1}
    found = decided(name, planted(everywhere(level), teacher))
    assert found.verdict == "undecided" and why in found.reason


def test_a_teacher_that_noise_does_not_hurt_says_nothing_of_its_dimensions():
    found = decided("rank-robustness", planted(top_k={"all": 0.795, "16": 0.79, "64": 0.793}))
    assert found.verdict == "undecided" and "less than 2" in found.reason


def test_students_of_other_networks_are_no_sizes():
    names = {"S": "timm/resnet18", "M": "timm/vit_tiny_patch16_224", "L": "timm/resnet50"}
    study = {"students": [{"name": n, "label": k, "image_size": 32} for k, n in names.items()]}
    results = planted(study=study)
    assert results.sizes(results.baseline()) == ["S", "L"]


def test_of_students_of_equal_size_the_first_stands_for_it(monkeypatch):
    monkeypatch.setitem(PARAMETERS, "M", PARAMETERS["S"])
    results = planted()
    assert results.sizes(results.baseline()) == ["S", "L"]
    blurred = [{**s, "blur_pool": True} if s["label"] == "M" else s for s in STUDY["students"]]
    results = planted(study={"students": blurred})
    assert results.sizes(results.baseline()) == ["S", "L"]
    assert decided("collapse", results).id == "collapse"


def test_a_claim_whose_function_fails_leaves_the_others_alone(monkeypatch):
    def failing(results):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(claims._parts, "failing", failing)
    monkeypatch.setitem(claims._facts, "failing", ClaimFacts(sentence="It fails.", seeds=5))
    with pytest.warns(RuntimeWarning, match="claim failing"):
        decision = decide_results(planted())
    assert decision["failing"].verdict == "undecided" and "ZeroDivisionError" in decision["failing"].reason
    assert decision.tested >= 5


def test_bands_of_two_places_are_not_compared_with_each_other():
    truth = {("*", "*", ACCURACY, "band=0-0.25/0.1"): 0.50, ("*", "*", ACCURACY, "band=0.75-1/0.1"): 0.65,
             ("*", "*", ACCURACY, "band=0-1/0.1@input"): 0.40, ("*", "*", ACCURACY, "band=1-7/0.1@input"): 0.70}
    found = decided("low-pass", planted(truth))
    assert "@input" not in found.endpoint and found.scope["bands"] == "band=0-0.25 and band=0.75-1"


def test_power_counts_the_parts_of_the_claim():
    found = decide_results(planted({("eight", "*", "student.effective_rank", "clean"): 30.0}))["collapse"]
    assert found.times == 3 and "/ 3 parts" in found.power


def test_several_contrastive_arms_are_tested_as_several():
    arms = [*STUDY["arms"], {"name": "ten", "objective": ["cosine", {"name": "crd", "weight": 0.5}]}]
    flat = {("four", "*", "student.effective_rank", "clean"): 16.0, ("ten", "*", "student.effective_rank", "clean"): 40.0}
    found = decided("expansion", planted(flat, study={"arms": arms}))
    assert found.scope["contrastive arm"] == "ten"
    assert {p["endpoint"] for p in found.parts} >= {f"rank of S under {loss} - 1.1 x plain"
                                                    for loss in ("cosine + 0.5 infonce", "cosine + 0.5 crd")}


def test_pairs_too_few_fall_back_on_welch():
    results = dataclasses.replace(planted(seeds=range(1, 21)), needed=10)
    arm = results.baseline()
    first, second = results.accuracy(arm, "S"), results.accuracy(arm, "L")
    assert results.difference("", first[first.index <= 11], second[second.index >= 11]).test == "Welch's t"
    with pytest.raises(Undecided, match="no paired seeds"):
        results.difference("", first[first.index <= 5], second[second.index > 5])


@pytest.mark.parametrize(("change", "where"), [
    ({"target": "none"}, "target"),
    ({"stresses": [{"name": "band_noise", "unit": "pixel"}]}, "stresses.band_noise"),
])
def test_studies_that_measured_otherwise_are_not_judged_together(change, where):
    first = planted_run(study={"stresses": [{"name": "band_noise", "unit": "normalised", "sigmas": [0.1]}]}, seeds=[1, 2, 3])
    with pytest.raises(UserError, match=where):
        results_of([first, planted_run(study=change, seeds=[4, 5, 6])])


def test_the_teachers_own_controls_count_in_whichever_run_they_are():
    """The first run's rows of the teacher stood for all: its controls in another run read as not run."""
    plain = planted_run(seeds=range(1, 6), study={"stresses": []})
    cut = planted_run(seeds=range(6, 11), top_k={"all": 0.6, "16": 0.3, "64": 0.5})
    found = [decide(runs)[0]["rank-robustness"] for runs in ([cut], [plain, cut], [cut, plain])]
    assert {v.verdict for v in found} == {"supported"} and len({v.n for v in found}) == 1
    other = planted_run(seeds=range(6, 11), top_k={"all": 0.6, "32": 0.6, "64": 0.6})
    both, = results_of([cut, other])
    assert controls(both)[1] == [16, 64], "kept images depend on all k of a run"


def test_every_run_is_compared_with_every_other():
    """What the first run lacks may differ between the others."""
    runs = [planted_run(seeds=[seed], study={"stresses": stresses}) for seed, stresses in (
        (1, []), (2, [{"name": "top_k", "own_train": True}]), (3, [{"name": "top_k"}]))]
    with pytest.raises(UserError, match="stresses.top_k"):
        results_of(runs)


def test_studies_of_other_images_under_the_same_name_are_not_judged_together():
    first, other = planted_run(seeds=[1, 2, 3]), planted_run(seeds=[4, 5, 6])
    first.references = [dataclasses.replace(r, fingerprint={"test images": "aa"}) for r in first.references]
    other.references = [dataclasses.replace(r, fingerprint={"test images": "bb"}) for r in other.references]
    with pytest.raises(UserError, match="test images"):
        results_of([first, other])


def blocks(language: str) -> dict[str, str]:
    """The first block of a language under each heading, by the heading's kind of part."""
    sections = re.findall(r"^## An? ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    kinds = {title.split(" of ")[0].replace(" ", "_"): text for title, text in sections}
    found = {kind: re.search(rf"^```{language}\n(.*?)^```", text, re.M | re.S) for kind, text in kinds.items()}
    return {kind: block[1] for kind, block in found.items() if block}


CODE = blocks("python")
SETTINGS = {kind: yaml.safe_load(text) for kind, text in blocks("yaml").items()}
TEMPLATE = blocks("html")["section"]


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """The namespaces of the page's code; what it registered is forgotten afterwards."""
    before = {kind: dict.fromkeys(registry) for kind, registry in KINDS.items()}
    made = {}
    for kind, code in CODE.items():
        module = ModuleType(FILES[kind])
        monkeypatch.setitem(sys.modules, FILES[kind], module)  # where a part's types are looked up
        exec(compile(code, f"extending.md, {kind}", "exec"), vars(module))
        made[kind] = vars(module)
    yield made
    for kind, registry in KINDS.items():
        for name in set(registry._parts) - set(before[kind]):
            del registry._parts[name]
    STUDY_SECTIONS.remove("durations")


def test_the_files_are_where_the_page_says():
    for path in FILES.values():
        assert f"src/{path.replace('.', '/')}.py" in PAGE.read_text()


def test_the_objective_is_what_it_says_and_takes_settings():
    s, t = (torch.randn(6, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))
    found = objectives.call("log_cosh", {"scale": 0.5}, s, t)
    assert float(found) == pytest.approx(float(np.log(np.cosh((s - t).numpy() / 0.5)).mean()), rel=1e-5)
    assert "log cosh" in objectives.summary("log_cosh")
    with refused(where="scale"):
        objectives.check("log_cosh", {"scale": -1})


def test_the_remedy_changes_a_copy(tmp_path, monkeypatch):
    from distillscope.data.preprocess import Preprocess
    from distillscope.students.load import build_student

    student = build_student("paper_cnn", {"width": 1}, 8, Preprocess(16), "S", torch.device("cpu"))
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    changed = remedies.call("rounded", {"bits": 4}, student, None, 1)
    assert all(torch.equal(v, before[k]) for k, v in student.module.state_dict().items())
    for weight in changed.module.parameters():
        assert len(weight.unique()) <= 15  # 2^4 - 1 levels
    with refused(where="remedies.rounded.bits", expected=("2", "16"), got="1"):
        remedies.call("rounded", {"bits": 1}, student, None, 1)


def test_every_kind_of_part_is_there():
    """A part of the page's own for each kind; curves are told with the measures, a section with its figures."""
    assert set(CODE) == set(FILES)
    registered = {kind for kind, parts in KINDS.items() if any(parts[name].__module__ in FILES.values() for name in parts)}
    assert registered == set(KINDS) - {"curves"}


def test_the_pages_parts_run_together_in_one_study(tmp_path, monkeypatch):
    """Every setting of the page: its objective, projector, target and view in arms of its data set, teacher and student."""
    from distillscope.study.run import run_study

    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    arms = [arm for kind in ("objective", "projector", "view") for arm in SETTINGS[kind]["arms"]]
    stresses = [stress for kind in ("corruption", "stress") for stress in SETTINGS[kind]["stresses"]]
    others = ("target", "teacher", "student", "data_set", "remedy")
    one = {key: value for kind in others for key, value in SETTINGS[kind].items()}
    study = study_from({"name": "own", **one, "arms": arms, "stresses": stresses, "seeds": [1], "noise": {"sigmas": []},
                        "training": {"epochs": 1, "batch_size": 16}, "validation": 15})
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    assert set(run.results["arm"]) == {"", *(f"{arm['name']}{more}" for arm in arms for more in ("", "+four-bit"))}
    assert {"mirror=flipped", "mirror=none", "corruption=darkness/3"} <= set(run.results["condition"])
    assert set(run.results["teacher"]) == {"thumbnails"} and set(run.results["student"]) == {"teacher", "flat"}


def test_the_measure_is_in_an_audit():
    z = np.random.default_rng(0).normal(size=(40, 3))
    found = audit(z, -z, groups=["alignment"], intervals=False)
    assert found["alignment.median_cosine"] == pytest.approx(-1) and found.measured["alignment.median_cosine"].unit == "cosine"


def test_what_the_target_cannot_fit_is_said_before_any_work():
    with pytest.raises(UserError, match="2 train images or more"):
        check_target("rescaled", {}, 27, 1)
    z = np.random.default_rng(0).normal(size=(40, 3))
    assert fit_target("rescaled", {"variance": 2.0}, z)(z).var(axis=0).mean() == pytest.approx(2.0, rel=1e-5)


def test_the_claim_is_decided_beside_the_ten():
    accuracy = "paper.probe.student.accuracy"
    paid = planted({("one", "L", accuracy, "clean"): 0.75})
    assert decided("size-pays", paid).verdict == "supported"
    assert decided("size-pays", planted()).verdict == "refuted"
    few = decided("size-pays", planted(seeds=range(1, 4)))
    assert few.verdict == "undecided" and "3 paired seeds, and this claim needs 5" in few.reason
    decision = decide_results(paid)
    assert [v.id for v in decision.verdicts] == [*ORDER, "size-pays"]
    alone = [v for v in decision.verdicts if v.id != "size-pays" and v.p is not None]
    assert decision.tested == len(alone) + 1


def test_every_objective_has_a_family():
    """A new objective has to say what it is, or `objective` and `expansion` leave its arms out."""
    assert [name for name in objectives if objectives.facts(name).family == "other"] == []


def test_the_section_stands_where_it_says_and_escapes(parts):
    names = list(STUDY_SECTIONS)
    assert names[-3:] == ["table", "durations", "provenance"]
    run = SimpleNamespace(trials=[SimpleNamespace(folder="<b>a", seconds=61.5), SimpleNamespace(folder="b", seconds=None)])
    shown = environment().from_string(TEMPLATE).render(**parts["section"]["durations"](run))
    assert "<li>&lt;b&gt;a: 62 s</li>" in shown and shown.count("<li>") == 1
    assert parts["section"]["durations"](SimpleNamespace(trials=[])) is None


def test_both_tables_hold_the_ten_in_order_with_their_seeds():
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in CLAIMS_PAGE.splitlines() if line.startswith("| `")]
    ids = [r[0].strip("`") for r in rows]
    assert ids == [*ORDER, *ORDER]
    for row in rows[:10]:
        assert int(row[-1].split()[0]) == claims.facts(row[0].strip("`")).seeds


def test_the_controls_of_the_page_are_a_study():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", CLAIMS_PAGE, re.M | re.S)
    study = tiny_study(**{**tiny_values(), **yaml.safe_load(text)})
    assert {a.name for a in study.arms} == {"plain", "longer", "regression", "soft", "contrast", "white", "noisy"}


@pytest.mark.parametrize("name", ["claims-quick", "claims", "paper-claims"])
def test_presets_run_what_every_claim_asks_for(name):
    """Judged by the config alone: on results for all its arms no claim misses a control."""
    study = load_preset(name).dump()
    titles = {a["name"]: f"{a['target']['name']}{a['target'].get('dim', '')}" for a in study["arms"] if a.get("target")}
    run = planted_run(study=study, top_k={"all": 0.6, "16": 0.3, "64": 0.5}, titles=titles, log_ranks={2: 20.0, 4: 20.0})
    (results,) = results_of([run])
    for claim in ORDER:
        found = decided(claim, results)
        assert "was not run" not in found.reason and "was not measured" not in found.reason, (claim, found.reason)
        assert found.p is not None or "largest" in found.reason, (claim, found.reason)


def test_presets_say_their_time_and_their_limits():
    quick, full = load_preset("claims-quick"), load_preset("claims")
    assert "minutes on two cores" in quick.description and "cannot decide" in quick.description
    assert "hours on two" in full.description.replace("two idle", "two") and len(full.seeds) >= 10
    assert all(len(a.seeds or full.seeds) >= 5 for s in (quick, full) for a in s.arms)
