"""The questions of an audit, answered with scikit-learn, SciPy and NumPy alone: what `distillscope audit` is timed against.

Written as someone who knows these libraries writes it in an afternoon: eigenvalues of covariances rather than SVDs of the
rows, float32 neighbours, blocked matrix products, the same sample sizes, null draws and numbers of groups as the audit. Means
over items have bootstrap intervals, which cost little; spectra, CKA and Procrustes are computed again without each tenth of the
items. Where the audit does more (neighbours and ridge maps without each tenth, twelve penalties where this tries three,
repeated rows, precision, notes, a table), this script does nothing.

    python benchmarks/audit_by_hand.py teacher.npy student.npy [labels.npy]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import subspace_angles
from scipy.spatial.distance import pdist, squareform
from scipy.special import logsumexp
from scipy.stats import binomtest, bootstrap, rankdata
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

GROUPS, SAMPLE, DRAWS, RSA, TOP, QUERIES = 10, 4096, 39, 1024, 20, 1024
CS, PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0), (1e-6, 1e-4, 1e-2)


def scatter(x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    x = x - x.mean(axis=0)
    return x.T @ (x if y is None else y - y.mean(axis=0))


def eigenvalues(z: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(scatter(z))[::-1].clip(min=0)


def entropy_rank(weights: np.ndarray) -> float:
    p = weights[weights > 0] / weights.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def spectrum(z: np.ndarray) -> dict[str, float]:
    """Ranks of one side (n, d)."""
    e = eigenvalues(z)
    halves = np.mean([np.log(entropy_rank(eigenvalues(half))) for half in (z[0::2], z[1::2])])
    raw = np.sqrt(np.linalg.eigvalsh(z.T @ z)[::-1].clip(min=0))[: len(z)]
    p = raw / raw.sum() + 1e-7
    share = np.cumsum(e) / e.sum()
    k = np.arange(11, min(500, int((e > 1e-12 * e[0]).sum())) + 1)
    return {"effective_rank": entropy_rank(e), "corrected": float(np.exp(2 * np.log(entropy_rank(e)) - halves)),
            "by_s": entropy_rank(np.sqrt(e)), "rankme": float(np.exp(-(p * np.log(p)).sum())),
            **{f"dims_{at}": float(np.searchsorted(share, at / 100) + 1) for at in (90, 95, 99)},
            "participation_ratio": float(e.sum() ** 2 / np.square(e).sum()), "stable_rank": float(e.sum() / e[0]),
            "decay": float(-np.polyfit(np.log(k), np.log(e[k - 1]), 1, w=np.sqrt(1 / k))[0]),
            "mean_energy": float(len(z) * np.square(z.mean(axis=0)).sum() / np.square(z).sum())}


def geometry(z: np.ndarray) -> dict[str, float]:
    """Uniformity and TwoNN of a sample."""
    kernel = np.exp(4 * cosine_similarity(z) - 4)
    distances = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(z).kneighbors(z)[0]
    mu = np.sort(np.log(distances[:, 2] / distances[:, 1]))[: int(0.9 * len(z))]
    empirical = -np.log1p(-np.arange(1, len(mu) + 1) / len(z))
    pairs = len(z) * (len(z) - 1)
    return {"uniformity": float(np.log((kernel.sum() - np.trace(kernel)) / pairs)), "twonn": float(mu @ empirical / (mu @ mu))}


def hsic(x: np.ndarray, y: np.ndarray, cross: np.ndarray) -> float:
    n, a, b = len(x), np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    paired = float(a @ b)
    pairs = a.sum() * b.sum() / ((n - 1) * (n - 2))
    return float((np.square(cross).sum() - paired + pairs - 2 * paired / (n - 2)) / n / (n - 3))


def similarity(t: np.ndarray, s: np.ndarray, within: tuple[np.ndarray, np.ndarray] | None = None) -> dict[str, float]:
    """CKA, debiased CKA and Procrustes of rows; ``within`` are both scatters where they are known."""
    t, s = t - t.mean(axis=0), s - s.mean(axis=0)
    tt, ss = within or (t.T @ t, s.T @ s)
    cross = s.T @ t
    return {"cka": float(np.square(cross).sum() / np.linalg.norm(tt) / np.linalg.norm(ss)),
            "cka_debiased": hsic(s, t, cross) / float(np.sqrt(hsic(t, t, tt) * hsic(s, s, ss))),
            "procrustes": float(np.linalg.svd(cross, compute_uv=False).sum() / np.sqrt(np.trace(tt) * np.trace(ss)))}


def captured(t: np.ndarray, s: np.ndarray) -> dict[str, float]:
    """Variance along the other side's components, and principal angles."""
    tt, ss = scatter(t), scatter(s)
    own, other = (np.linalg.eigh(m)[1][:, ::-1] for m in (tt, ss))
    energy = {"student_on_teacher": (own * (ss @ own)).sum(axis=0), "teacher_on_student": (other * (tt @ other)).sum(axis=0),
              "teacher_on_teacher": (own * (tt @ own)).sum(axis=0)}
    angles = np.degrees(subspace_angles(own[:, :TOP], other[:, :TOP]))
    return {**{name: float(e[:TOP].sum() / e.sum()) for name, e in energy.items()},
            "angle_mean": float(angles.mean()), "angle_max": float(angles.max())}


def infonce(s: np.ndarray, t: np.ndarray, size: int, temperature: float = 0.1) -> np.ndarray:
    losses = []
    for i in range(0, len(s) // size * size, size):
        logits = s[i : i + size] @ t[i : i + size].T / temperature
        losses.append(logsumexp(logits, axis=1) - np.diagonal(logits))
    return np.concatenate(losses)


def paper(s: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    """Batches of 64 in row order."""
    size = 64

    def uniformity(z: np.ndarray) -> np.ndarray:
        return np.array([np.log(np.exp(4 * (b @ b.T) - 4).mean()) for b in (z[i : i + size] for i in range(0, len(z), size))])

    return {"paper_infonce": infonce(s, t, size), "paper_uniformity": uniformity(s), "paper_teacher_uniformity": uniformity(t)}


def nearest(z: np.ndarray, k: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(z).kneighbors(return_distance=False)


def shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first[:, :, None] == second[:, None, :]).any(axis=2).mean(axis=1)


def index(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The first ten results of each query but its own item, by cosine."""
    found = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(gallery).kneighbors(
        queries, return_distance=False)
    own = found == np.arange(len(queries))[:, None]
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(queries), 10)


def ndcg(relevant: np.ndarray, possible: np.ndarray) -> np.ndarray:
    discount = 1 / np.log2(np.arange(2, 12))
    return relevant @ discount / np.cumsum(discount)[np.minimum(possible, 10) - 1]


def exchanged(t: np.ndarray, s: np.ndarray, mapped: np.ndarray, own: dict[str, np.ndarray],
              labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Either side's queries in either side's index, and hubs."""
    results = {**own, "student_in_teacher": index(t, s), "teacher_in_student": index(s, t),
               "mapped_student_in_teacher": index(t, mapped), "mapped_teacher_in_student": index(mapped, t)}
    found = {}
    for name, first in results.items():
        like = (first[:, :, None] == own["teacher"][:, None, :]).any(axis=2)
        found |= {f"swap_{name}_recall": like.mean(axis=1), f"swap_{name}_ndcg": ndcg(like, np.full(len(like), 10))}
        if labels is not None:
            of_class = labels[first] == labels[:, None]
            found |= {f"swap_{name}_label_first": of_class[:, 0],
                      f"swap_{name}_label_ndcg": ndcg(of_class, np.bincount(labels)[labels] - 1)}
    for side, first in own.items():
        found[f"{side}_unfound"] = np.bincount(first.ravel(), minlength=len(first)) == 0
    return found


def compressed(z: np.ndarray, whole: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """What half and a quarter of the dimensions, int8 and binary codes keep of the first results and of neighbours' votes."""
    steps = np.abs(z).max(axis=0) / 127
    codes = {"half": z[:, : z.shape[1] // 2], "quarter": z[:, : z.shape[1] // 4], "int8": np.rint(z / steps) * steps,
             "binary": np.where(z > z.mean(axis=0), 1.0, -1.0)}
    found = {}
    for name, short in codes.items():
        first = index(short, short[:QUERIES])
        found[f"{name}_overlap"] = shared(first, whole[:QUERIES])
        if labels is not None:
            votes = (labels[first][:, :, None] == np.unique(labels)).sum(axis=1)
            found[f"{name}_knn"] = votes.argmax(axis=1) == labels[:QUERIES]
    return found


def few(z: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Accuracy of probes fitted to 1, 5, 10 and 50 of each class, on each of ten parts of the items."""
    z, found = (z - z.mean(axis=0)) / z.std(), {}
    for size in (1, 5, 10, 50):
        found[f"at_{size}"] = []
        for part in (np.arange(i, len(z), 10) for i in range(10)):
            chosen = np.concatenate([part[labels[part] == c][:size] for c in np.unique(labels)])
            rest = np.setdiff1d(part, chosen)
            if not len(rest):
                break
            model = LogisticRegression(C=10.0, max_iter=2000).fit(z[chosen], labels[chosen])
            found[f"at_{size}"].append(float(model.score(z[rest], labels[rest])))
    return found


def believable(probabilities: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Calibration error, log loss and risk over coverage."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    bins = np.minimum((15 * sure).astype(int), 14)
    wrong = ~right[np.argsort(-sure)]
    return {"ece": float(np.abs(np.bincount(bins, sure - right)).sum() / len(sure)),
            "log_loss": float(log_loss(codes, probabilities)),
            "aurc": float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())}


def ranks(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    found = np.empty(len(queries))
    for i in range(0, len(queries), 1000):
        scores = queries[i : i + 1000] @ gallery.T
        found[i : i + 1000] = (scores >= scores[np.arange(len(scores)), i + np.arange(len(scores))][:, None]).sum(axis=1)
    return found


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def rsa(t: np.ndarray, s: np.ndarray, rng: np.random.Generator, intervals: bool) -> dict[str, Any]:
    first, second = squareform(pdist(t)), squareform(pdist(s))
    upper = np.triu_indices(len(t), 1)
    a, b = rankdata(first[upper]), squareform(rankdata(second[upper]))
    draws = [spearman(a, b[np.ix_(order, order)][upper]) for order in (rng.permutation(len(t)) for _ in range(DRAWS))]
    left = []
    for g in range(GROUPS if intervals else 0):
        kept = np.flatnonzero(np.arange(len(t)) % GROUPS != g)
        inner = np.triu_indices(len(kept), 1)
        left.append(spearman(*(rankdata(d[np.ix_(kept, kept)][inner]) for d in (first, second))))
    return {"rsa": spearman(a, b[upper]), "rsa_null": np.quantile(draws, [0.025, 0.975]).tolist(), "rsa_left_out": left}


def boot(scores: np.ndarray) -> list[float]:
    found = bootstrap((scores,), np.mean, n_resamples=1000, method="percentile", batch=10).confidence_interval
    return [float(found.low), float(found.high)]


def jackknife(measure: Callable[..., dict[str, float]], *sides: np.ndarray) -> dict[str, list[float]]:
    """Values and the error from leaving each tenth out."""
    values = measure(*sides)
    group = np.arange(len(sides[0])) % GROUPS
    left = [measure(*(z[group != g] for z in sides)) for g in range(GROUPS)]
    spread = {key: np.std([v[key] for v in left]) * np.sqrt(GROUPS - 1) for key in values}
    return {key: [value, value - 2.262 * spread[key], value + 2.262 * spread[key]] for key, value in values.items()}


def probe(z: np.ndarray, labels: np.ndarray, tuned: bool) -> np.ndarray:
    """The probabilities (n, classes) of each item by a probe of the other folds."""
    found = np.empty((len(z), len(np.unique(labels))))
    for train, test in KFold(5).split(z):
        if not tuned:
            model = LogisticRegression(max_iter=2000).fit(normalize(z[train]), labels[train])
            found[test] = model.predict_proba(normalize(z[test]))
            continue
        inner, held = train[: len(train) * 4 // 5], train[len(train) * 4 // 5 :]
        scale = StandardScaler().fit(z[inner])
        x, y = scale.transform(z[inner]), scale.transform(z[held])
        models = [LogisticRegression(C=c, max_iter=2000, tol=1e-5).fit(x, labels[inner]) for c in CS]
        best = max(models, key=lambda m: m.score(y, labels[held]))
        found[test] = best.predict_proba(scale.transform(z[test]))
    return found


def classified(sides: dict[str, np.ndarray], found_near: dict[str, np.ndarray],
               labels: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    known, codes = np.unique(labels, return_inverse=True)
    found, beside = {}, {}
    for side, z in sides.items():
        votes = (codes[found_near[side]][:, :, None] == np.arange(len(known))).sum(axis=1)
        tuned, plain = probe(z, labels, True), probe(z, labels, False)
        found |= {f"{side}_probe": tuned.argmax(axis=1) == codes, f"{side}_paper_probe": plain.argmax(axis=1) == codes,
                  f"{side}_knn": votes.argmax(axis=1) == codes}
        beside[side] = believable(tuned, codes) | few(z, labels)
    for name in ("probe", "knn"):
        found[f"{name}_negative_flips"] = found[f"teacher_{name}"] & ~found[f"student_{name}"]
    return found, beside


def audit(teacher: np.ndarray, student: np.ndarray, labels: np.ndarray | None = None, intervals: bool = True) -> dict[str, Any]:
    """Every answer, from rows (n, d) of both sides in one dimension."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(teacher))
    single = {"teacher": teacher[order], "student": student[order]}
    t, s = (z.astype(np.float64) for z in single.values())
    unit_t, unit_s = normalize(t), normalize(s)
    again = jackknife if intervals else lambda measure, *sides: measure(*sides)
    found: dict[str, Any] = {"teacher": again(spectrum, t), "student": again(spectrum, s),
                             "alignment": again(captured, t, s), "similarity": again(similarity, t, s),
                             "teacher_sample": geometry(t[:SAMPLE]), "student_sample": geometry(s[:SAMPLE])}
    cosines = (unit_t * unit_s).sum(axis=1)
    predicted = cross_val_predict(RidgeCV(eigenvalues(s)[0] * np.array(PENALTIES)), s, t, cv=KFold(5))
    missed, total = np.square(t - predicted).sum(axis=1), np.square(t - t.mean(axis=0)).sum(axis=1)
    found["r2"] = 1 - missed.sum() / total.sum()
    batch = min(1024, len(t))
    items = {"cosine": cosines, "r2": 1 - missed / total.mean(), "infonce": infonce(unit_s, unit_t, batch),
             "teacher_infonce": infonce(unit_t, unit_t, batch), **paper(normalize(student.astype(float)),
                                                                      normalize(teacher.astype(float)))}
    found["by_k"] = {k: infonce(unit_s, unit_t, k).mean() for k in (16, 64, 256, 1024, 4096) if k <= len(t)}
    found["by_temperature"] = {at: infonce(unit_s[: 4 * batch], unit_t[: 4 * batch], batch, at).mean()
                               for at in (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.5, 1.0)}
    near = {side: nearest(z, 10) for side, z in single.items()}
    items["overlap"] = shared(near["student"], near["teacher"])
    in_sample = [nearest(z[:SAMPLE], 10) for z in single.values()]
    items["mutual_knn"] = shared(*in_sample)
    for name, queries in (("recall", unit_s), ("mapped_recall", normalize(predicted))):
        at = ranks(queries.astype(np.float32), unit_t.astype(np.float32))
        items |= {f"{name}_{k}": at <= k for k in (1, 5, 10)}
    small_t, small_s = t[:SAMPLE], s[:SAMPLE]
    codes = None if labels is None else np.unique(labels[order], return_inverse=True)[1][:SAMPLE]
    own = dict(zip(("teacher", "student"), in_sample, strict=True))
    if len(t[0]) == len(s[0]):
        items |= exchanged(unit_t[:SAMPLE], unit_s[:SAMPLE], normalize(predicted[:SAMPLE]), own, codes)
    for side, z in (("teacher", unit_t), ("student", unit_s)):
        items |= {f"{side}_{name}": kept for name, kept in compressed(z[:SAMPLE], own[side], codes).items()}
    within = scatter(small_t), scatter(small_s)
    null = [similarity(small_t, small_s[rng.permutation(len(small_s))], within) for _ in range(DRAWS)]
    found["nulls"] = {key: np.quantile([v[key] for v in null], [0.025, 0.975]).tolist() for key in null[0]}
    shuffles = [rng.permutation(len(small_s)) for _ in range(DRAWS)]
    found["nulls"]["mutual_knn"] = [shared(in_sample[0], np.argsort(o)[in_sample[1][o]]).mean() for o in shuffles]
    found["rsa"] = rsa(t[:RSA], s[:RSA], rng, intervals)
    if labels is not None:
        right, found["classified"] = classified({"teacher": t, "student": s}, near, labels[order])
        items |= right
        for name in ("probe", "paper_probe", "knn"):
            only = [int((right[f"{a}_{name}"] & ~right[f"{b}_{name}"]).sum()) for a, b in (("teacher", "student"),
                                                                                       ("student", "teacher"))]
            found[f"{name}_p"] = float(binomtest(only[0], max(1, sum(only))).pvalue)
    found["items"] = {name: [float(np.mean(v)), *(boot(np.asarray(v, float)) if intervals else [])]
                      for name, v in items.items()}
    return found


if __name__ == "__main__":
    print(json.dumps(audit(*(np.load(name) for name in sys.argv[1:])), indent=2))
