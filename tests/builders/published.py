"""The rows that the tables of results/ should hold, from the data beside each page."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from functools import cache, partial

import numpy as np

import distillscope
from builders.measured import RESULTS, audit_speed, benchmarks, chain, cluster, data_path, lightly, many_images, read, ship
from builders.tiny import once, scratch
from distillscope.measure.intervals import holm
from distillscope.results.statistics import paired

PROBE, TUNED = "paper.probe.student.accuracy", "probe.student.accuracy"
NOISES = ("noise=0.05", "noise=0.1", "noise=0.2")


@cache
def unpacked(page):
    """The folder that a page's runs.zip makes, or the page's own where its one run needs no such file."""
    if not (packed := RESULTS / page / "runs.zip").is_file():
        return RESULTS / page
    return once(scratch() / page, zipfile.ZipFile(packed).extractall)


@cache
def results(archive):
    page, _, run = archive.partition("/")
    return distillscope.load_study(unpacked(page) / run).results  # of the test split alone


@cache
def seeds(*archives):
    """(student, arm, measure, condition) -> one number per seed, of the first archive that has the arm."""
    found = {}
    for archive in archives:
        rows = results(archive)
        means = rows[rows.student != "teacher"].groupby(["student", "arm", "measure", "condition", "seed"]).value.mean()
        for key, values in means.groupby(level=[0, 1, 2, 3]):
            found.setdefault(key, values.droplevel([0, 1, 2, 3]))
    return found


def of_teacher(archive, measure, condition="clean", target="pca512"):
    rows = results(archive)
    rows = rows[(rows.student == "teacher") & (rows.target == target)]
    return rows[(rows.measure == measure) & (rows.condition == condition)].value.mean()


def mean(archives, arm, measure, condition="clean", student="S"):
    return seeds(*archives)[student, arm, measure, condition].mean()


def interval(values):
    found = paired(list(values))
    return [found.mean, *found.interval()]


def script(page, name):
    spec = importlib.util.spec_from_file_location(name, RESULTS / page / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# One function a page: for each of its tables, the numbers of each row's cells behind the first.


def audit():
    with zipfile.ZipFile(RESULTS / "2026-11-23-audit" / "audits.zip") as packed:
        found = {size: json.loads(packed.read(f"{size}.json"))["measures"] for size in "SML"}

    def row(key, scale=1.0, teacher=None, plain=False):
        sides = [[scale * found[s][key][k] for k in (("value",) if plain else ("value", "low", "high"))] for s in "SML"]
        return [[scale * found["S"][teacher]["value"]] if teacher else [], *sides]

    yield [row("student.effective_rank", teacher="teacher.effective_rank"),
           row("student.dims_90", teacher="teacher.dims_90", plain=True), row("alignment.teacher_r2"),
           row("alignment.mean_cosine"), row("alignment.student_variance_top20", 100, "alignment.teacher_variance_top20"),
           row("contrastive.retained_share", 100), row("retrieval.recall_at_1", 100), row("retrieval.mapped_recall_at_1", 100),
           row("retrieval.neighbour_overlap_10", 100), row("similarity.linear_cka_debiased"),
           row("probe.student.accuracy", 100, "probe.teacher.accuracy"), row("probe.retention", 100),
           row("paper.probe.retention", 100), row("knn.retention", 100)]


def cifar10():
    page = "2026-11-23-cifar10"

    def teacher(target):
        of = lambda m, c="clean": [of_teacher(page, m, c, target)]  # noqa: E731
        return [[of("capacity.parameters")[0] / 1e6], of("teacher.effective_rank"), of("teacher.effective_rank_corrected"),
                of("teacher.dims_90"), *([100 * v for v in of("paper.probe.teacher.accuracy", c)] for c in ("clean", *NOISES)),
                [], [], [], []]

    def student(size, arm, scale):
        def cell(measure, condition="clean", times=1.0, spread=True):
            values = times * seeds(page)[size, arm, measure, condition]
            return [values.mean(), values.std()] if spread and len(values) > 1 else [values.mean()]

        return [cell("capacity.parameters", times=scale, spread=False),
                *map(cell, ("student.effective_rank", "student.effective_rank_corrected", "student.dims_90")),
                *(cell(PROBE, c, 100) for c in ("clean", *NOISES)), cell("paper.infonce"),
                cell("paper.infonce_ceiling", spread=False), cell("paper.uniformity"), cell("alignment.mean_cosine")]

    yield [teacher("pca512"), teacher("none"), student("S", "cosine", 1e-3), student("M", "cosine", 1e-6),
           student("L", "cosine", 1e-6), student("L", "augmented", 1e-6)]


def screen():
    of = lambda arm, m, c="clean", times=1: [times * mean(["2026-11-23-screen"], arm, m, c)]  # noqa: E731
    yield [
        [of(a, "student.effective_rank"), of(a, "mapped.effective_rank"), of(a, "mapped.teacher_r2"),
         of(a, "mapped.recall_at_1", times=100), *(of(a, PROBE, c, 100) for c in ("clean", "noise=0.1", "noise=0.2"))]
        for a in ("cosine", "cosine noise")
    ]


def verdicts(page):
    """From claims.json, which `distillscope claims` wrote."""
    for v in read(page, "claims.json")["settings"][0]["verdicts"]:
        if v["effect"] is None:
            yield [[v["verdict"]], None, [], [], [], []]
        else:
            yield [[v["verdict"]], None, [v["effect"], v["low"], v["high"]], [v["bound"]], [max(v["p_holm"], 0.001)], [v["n"]]]


def claims():
    page = "2026-11-24-claims"
    yield list(verdicts(page))

    def spread(arm, measure, condition="clean", times=1):
        values = times * seeds(page)["S", arm, measure, condition]
        return [values.mean(), values.std()]

    yield [
        [[n], spread(a, "student.effective_rank"), spread(a, "alignment.teacher_r2"),
         *(spread(a, PROBE, c, 100) for c in ("clean", "noise=0.1", "noise=0.2"))]
        for a, n in (("cosine", 10), ("epochs20", 5), ("epochs60", 5))
    ]
    columns = [("student.effective_rank", "clean", 1), ("mapped.teacher_r2", "clean", 1), (PROBE, "clean", 100),
               (PROBE, "noise=0.1", 100), (PROBE, "noise=0.2", 100)]
    arms = ("centred", "mse", "labels", "standardised", "contrast", "vicreg", "half-whitened", "whitened", "noise",
            "noise-same", "cosine+bn")
    yield [[[t * mean([page], "cosine", m, c, size) for size in "SML"] for m, c, t in columns],
           *([[t * mean([page], arm, m, c)] for m, c, t in columns] for arm in arms)]


def recipe():
    found = {v["name"]: v["out"] for v in read("2026-11-24-recipe", "trials.jsonl")}
    names = ["cosine plain", "labels 1c 4e-3 b128 noise.3", "first look: w.7 mse.1 nce.9 1c 4e-3 b128 noise.3", "same muonconv",
             "w.7 first muonconv b128 convmul 3", "same muon b256", "w.6 mse.1 kl.9 q1024 muonconv b128",
             "pca cos+nce muonconv b128", "pca cos+nce muonconv b128 convmul 3", "w.7 cos+nce muonconv b128 convmul 3",
             "w.5 cos+nce muonconv b128 convmul 3", "labels muonconv b128 convmul 3"]

    def row(out):
        clean, noisy, noisier = out["paper"]
        return [[out["rank"]], [clean], [noisy], [noisier], [clean - noisier],
                *([[out["tuned"][0]], [out["tuned"][2]]] if "tuned" in out else [[], []])]

    yield [None, *(row(found[name]) for name in names)]  # the teacher's row stood in the script's output alone


def bridge():
    archives = ("2026-11-25-bridge/source", "2026-11-25-bridge/input")
    at = [(0, "clean"), (0, "noise=0.1"), (0, "noise=0.2"), (1, "noise=0.1"), (1, "noise=0.2")]

    def accuracy(student, place, condition):
        return 100 * seeds(archives[place])[student, "cosine", PROBE, condition]

    pairs = [("S", "L"), ("S at 64 px", "L at 64 px"), ("S at 64 px", "S"), ("L at 64 px", "L")]
    yield [[[100 * of_teacher(archives[p], "paper.probe.teacher.accuracy", c)] for p, c in at],
           *([interval(accuracy(s, p, c)) for p, c in at] for s in ("S", "L", "S at 64 px", "L at 64 px")),
           *([interval(accuracy(a, p, c) - accuracy(b, p, c)) for p, c in at] for a, b in pairs)]


def claims_quick(page):
    yield list(verdicts(page))


def row_of_conditions(archives, arm, lost):
    """Rank, three in the teacher's space, both probes clean and at sigma 0.2; ``lost`` makes a cell of the paper's loss."""
    found = seeds(*archives)
    clean, noisy = (100 * found["S", arm, PROBE, c] for c in ("clean", "noise=0.2"))
    return [[mean(archives, arm, "student.effective_rank")], [mean(archives, arm, "mapped.effective_rank")],
            [mean(archives, arm, "mapped.teacher_r2")], [100 * mean(archives, arm, "mapped.recall_at_1")], [clean.mean()],
            [noisy.mean()], lost(clean - noisy), [100 * mean(archives, arm, TUNED)],
            [100 * mean(archives, arm, TUNED, "noise=0.2")]]


def teacher_of_conditions(archive):
    clean, noisy, tuned, tuned_noisy = (
        100 * of_teacher(archive, f"{p}.teacher.accuracy", c) for p in ("paper.probe", "probe") for c in ("clean", "noise=0.2")
    )
    return [[of_teacher(archive, "teacher.effective_rank")], [], [], [], [clean], [noisy], [clean - noisy], [tuned],
            [tuned_noisy]]


def condition_cells(archives, arm):
    """Condition -> difference with its interval and the verdict, by the page's own script."""
    found = seeds(*archives)
    quantities = script("2026-11-25-four", "conditions").quantities(
        lambda a, m, c="clean": found["S", a, m, c],
        lambda m: of_teacher(archives[0], m, target="none"),
        "cosine",
        "labels",
        arm,
    )
    cells = []
    for values in quantities.values():
        mean_, low, high = interval(values.dropna())
        cells.append(([mean_, low, high], "met" if low > 0 else "missed" if high < 0 else "open"))
    return cells


def times_of(archives, arm):
    return mean(archives, arm, "student.effective_rank") / mean(archives, "cosine", "student.effective_rank")


def four():
    page = ["2026-11-25-four"]
    yield [teacher_of_conditions(page[0]),
           *(row_of_conditions(page, a, interval) for a in ("cosine", "labels", "similarity", "contrast"))]
    similarity, contrast = condition_cells(page, "similarity"), condition_cells(page, "contrast")
    yield [[[*similarity[0][0], times_of(page, "similarity")], contrast[0][0]],
           *([[*side[first][0], *side[first + 4][0]] for side in (similarity, contrast)] for first in (1, 2, 3, 4))]
    out = {(v["name"], v["n"], v.get("seed")): v["out"]["paper"] for v in read("2026-11-25-four", "screen.jsonl")}

    def of(*names):
        return np.mean([next(p for (name, _, _), p in out.items() if name == wanted) for wanted in names], axis=0).tolist()

    yield [
        [of("n5 cosine plain"), of("n5 cos+nce.2 b32"), of("n5 labels b32")],
        [of("n15 cosine plain"), of("n15 cos+nce.2 b32", *(f"screen3 n15 cos+nce.2 b32 s{i}" for i in (1, 2, 3))),
         of("n15 labels b32", "screen3 n15 labels b32 s1", "screen3 n15 labels b32 s2")],
        [of("full cosine plain"), of("full cos+nce.2 b32"), of("full labels b32")],
    ]


def frontier():
    few, more, full = (["2026-11-25-frontier/few"], ["2026-11-25-four", "2026-11-25-frontier/twin"],
                       ["2026-11-25-frontier/all"])
    plain = ("cosine", "labels", "contrast", "contrast+half", "similarity")
    arms = [(few, (*plain, "similarity+half")), (more, plain),
            (full, ("cosine", "labels", "labels+half", "contrast", "contrast+half"))]
    yield [
        row
        for archives, names in arms
        for row in [[None, *teacher_of_conditions(archives[0])],
                    *([None, *row_of_conditions(archives, a, lambda d: [d.mean()])] for a in names)]
    ]
    sides = [(condition_cells(a, "contrast+half"), times_of(a, "contrast+half")) for a in (few, more, full)]
    order = (0, 1, 5, 2, 6, 3, 7, 4, 8)
    yield [[[*cells[i][0], *([times] if i == 0 else []), cells[i][1]] for cells, times in sides] for i in order]


def recipes():
    folder, page = unpacked("2026-11-26-recipes"), script("2026-11-26-recipes", "recipes")
    found, chosen = page.screening(folder)
    yield [
        [*([row[name, c] for c in ("clean", "noisy", "gain", "recall", "rank", "time")] for name in page.SETS),
         [row["all", c] for c in ("gain", "recall", "time")]]
        for _, row in found.iterrows()
    ]
    assert f"`{chosen}`" in (RESULTS / "2026-11-26-recipes.md").read_text(encoding="utf-8")
    runs = [folder / f"test-{name}" for name in page.SETS if (folder / f"test-{name}").is_dir()]
    everything = {**page.ENDPOINTS, **page.DESCRIBED}
    yield [
        [None, *([page.values(table, arm, e).mean()] for e in {**everything, **page.SECONDS})]
        for table in map(page.of_seeds, runs)
        for arm in page.arms_of(table)
    ]
    yield [
        [cell for _, _, *numbers_, _, verdict in pair for cell in (numbers_, [f"^{verdict}$"])]
        for run in runs
        for pair in zip(*[iter(page.judged(run))] * 2, strict=True)
    ]
    differences = [page.described(run, "control") for run in runs]
    yield [[list(found[e]) for found in differences] for e in everything]


def pilots():
    yield [None] * 10  # the rules
    rows = {}
    for arm, _, measure, value in read("2026-11-27-verdicts", "pilots.json")["tune"]["rows"]:
        rows.setdefault(arm, {}).setdefault(measure, []).append(value)
    order = ("cosine contrast mse mse-3e-3 mse-1e-2 l1-1e-3 l1-3e-3 phi_s phi_s-3e-3 standardised centred koleo-0.02 koleo-0.1 "
             "vicreg-0.001 vicreg-0.004 vicreg-cov-0.004 vicreg-cov-0.04 whiten-0.25 whiten-0.5 relational gram").split()
    assert sorted(order) == sorted(rows)
    scales = {"student.effective_rank": 1, "mapped.teacher_r2": 1, TUNED: 100, "knn.student.accuracy": 100,
              "mapped.recall_at_1": 100}
    yield [[[scale * np.mean(rows[arm][key])] if key in rows[arm] else None for key, scale in scales.items()] for arm in order]
    found = json.loads((unpacked("2026-11-27-verdicts") / "verdicts" / "claims.json").read_text())
    by_claim = list(zip(*(setting["verdicts"] for setting in found["settings"]), strict=True))
    yield [[[one["outcome"]], *([v["verdict"]] for v in verdicts)]
           for one, verdicts in zip(found["together"], by_claim, strict=True)]
    decided = [verdicts for verdicts in by_claim if verdicts[0]["effect"] is not None]
    yield [[None, *([v["effect"], v["low"], v["high"]] for v in verdicts)] for verdicts in decided]
    yield list(soft_labels())
    yield from second_look()


def soft_labels():
    """For each teacher: rank and tuned probe under cosine and both temperatures, and the verdict with them."""
    folder = unpacked("2026-11-27-verdicts")
    asked = "student == 'S' and condition == 'clean' and arm == @arm"
    trials = {arm: distillscope.load_study(folder / run).results.query(asked)
              for arm, run in (("cosine", "verdicts"), ("soft-labels", "soft-labels"), ("soft-labels-1", "soft-labels"))}
    for setting in json.loads((folder / "soft-labels" / "claims.json").read_text())["settings"]:
        found = next(v for v in setting["verdicts"] if v["id"] == "objective")
        means = [[scale * rows[(rows.measure == key) & (rows.teacher == setting["teacher"])].value.mean()]
                 for key, scale in (("student.effective_rank", 1), (TUNED, 100)) for rows in trials.values()]
        yield [*means, [found["effect"], found["low"], found["high"]], [found["p_holm"]], [found["verdict"]]]


def second_look():
    """For each teacher: ranks, the endpoint of `objective`, both verdicts. Then each way of `expansion` less plain cosine."""
    folder = unpacked("2026-11-27-verdicts") / "second"
    rows = distillscope.load_study(folder).results.query("student == 'S' and condition == 'clean'")
    ranks = rows[rows.measure == "student.effective_rank"].groupby(["teacher", "arm"]).value.mean()
    found = {setting["teacher"]: {v["id"]: v for v in setting["verdicts"]}
             for setting in json.loads((folder / "claims.json").read_text())["settings"]}
    yield [[*([ranks[teacher, arm]] for arm in ("cosine", "phi-s", "phi-s-l1", "centred", "vicreg", "contrast")),
            [one["effect"], one["low"], one["high"]], [one["p_holm"]], [one["verdict"]], [of["expansion"]["verdict"]]]
           for teacher, of in found.items() for one in [of["objective"]]]
    titles = ("centred_cosine", "cosine + 0.004 vicreg_covariance + 0.1 vicreg_variance", "mse on", "smooth_l1 on")
    parts = [[p for p in of["expansion"]["parts"] if title in p["endpoint"]] for title in titles for of in found.values()]
    yield [[None, *([p["effect"]] for p in four), [min(1, max(p["p_false"] for p in four) * of["expansion"]["times"])]]
           for four, of in zip(parts, [*found.values()] * len(titles), strict=True)]


def frontier_recipe():
    yield from ([None] * 13, [None] * 6)  # what each arm is, and what is asked
    folder, page = unpacked("2026-11-27-frontier"), script("2026-11-27-frontier", "frontier")
    screens, runs = ([one for name in (f"frontier{what}", f"frontier{what}-ensemble") if (one := folder / name).is_dir()]
                     for what in ("-screen", ""))
    yield [[*([v] if v == v else [] for v in row[1:]), *[None] * 4] for row in page.screened(screens)[0]]
    yield [[[v] for v in row[1:]] for row in page.run_rows(runs)]
    won = {(arm, end): values for arm, end, *values in page.loss_alone(runs)}
    arms, ends = (list(dict.fromkeys(names)) for names in zip(*won, strict=True))
    yield [*([won[arm, end][:3] for arm in arms] for end in ends), [won[arm, "tuned probe, clean"][3:] for arm in arms]]
    found = {(arm, line): values for arm, line, *values in page.condition_rows(runs)}
    arms, lines = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    yield [[found[arm, line] for arm in arms] for line in lines]


def geometry():
    found = read("2026-11-27-geometry", "pilot.json")
    pilots = [found[name] for name in ("accuracy", "accuracy, bfloat16")]
    yield [[[100 * found["teacher"][c]], *([100 * pilot[c][seed]] for pilot in pilots for seed in ("901", "902"))]
           for c in ("clean", *(f"noise={s}" for s in (0.03, 0.05, 0.07, 0.1, 0.15, 0.2)))]
    page, sigmas = "2026-11-27-geometry", (0.05, 0.075, 0.1, 0.2)
    if not (RESULTS / page / "runs.zip").is_file():
        return  # a protocol until its run is packed beside it
    archive, decide, rank = f"{page}/geometry", "noise=0.1", "student.effective_rank"
    arms = (("S", "cosine"), ("M", "cosine"), ("L", "cosine"), ("S", "noise"))
    conditions = ["clean", *(f"noise={s}" for s in sigmas)]
    right = {one: {c: 100 * seeds(archive)[(*one, PROBE, c)] for c in conditions} for one in arms}
    lost = {one: {c: v["clean"] - v[c] for c in conditions[1:]} for one, v in right.items()}
    small, large, won = lost[arms[0]], lost[arms[2]], right[arms[3]][decide] - right[arms[0]][decide]
    ranks = [seeds(archive)[(*one, rank, "clean")] for one in arms]
    yield [[[of_teacher(archive, "teacher.effective_rank")], *([v.mean(), v.std()] for v in ranks)],
           *([[100 * of_teacher(archive, "paper.probe.teacher.accuracy", c)],
              *([v[c].mean(), v[c].std()] for v in right.values())] for c in conditions)]
    yield [[*([v[c].mean()] for v in lost.values()), interval(large[c] - small[c])] for c in conditions[1:]]
    tests = {1: paired(list(large[decide] - small[decide])), 0: paired(list(won - small[decide] / 2))}
    p = {bound: test.p(bound) for bound, test in tests.items()}
    yield [[[test.mean, *test.interval()], [bound], [p[bound]], [holm(p)[bound]]] for bound, test in tests.items()]


TABLES = {
    "2026-11-23-audit": audit,
    "2026-11-23-benchmarks": benchmarks,
    "2026-11-23-cifar10": cifar10,
    "2026-11-23-screen": screen,
    "2026-11-24-claims": claims,
    "2026-11-24-recipe": recipe,
    "2026-11-25-bridge": bridge,
    "2026-11-25-claims-quick": partial(claims_quick, "2026-11-25-claims-quick"),
    "2026-11-27-claims-quick": partial(claims_quick, "2026-11-27-claims-quick"),
    "2026-11-25-four": four,
    "2026-11-25-frontier": frontier,
    "2026-11-27-frontier": frontier_recipe,
    "2026-11-26-recipes": recipes,
    "2026-11-26-ship": ship,
    "2026-11-27-audit-speed": audit_speed,
    "2026-11-27-chain": chain,
    "2026-11-27-geometry": geometry,
    "2026-11-27-verdicts": pilots,
    "2026-11-27-cluster": cluster,
    "2026-11-27-data-path": data_path,
    "2026-11-27-many-images": many_images,
    "2026-11-27-lightly": lightly,
}
