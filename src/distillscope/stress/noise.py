"""What Gaussian noise does to embeddings: to those cut to their top principal components, and to a probe fitted to noisy ones.

``top_k`` asks whether robustness depends on the dimensions; ``noise_probe`` what noise moves, as against what it destroys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from distillscope.config.parts import NoiseSpec
from distillscope.data.noise import Noise
from distillscope.data.source import Source
from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.registry import stresses
from distillscope.results.rows import WHITE, WHOLE, Condition, Row
from distillscope.stress.subject import Findings, Probe, Subject, few, need_labels, need_range
from distillscope.targets.transforms import unit_rows


@stresses.register("top_k", own_target=True)  # probes are fitted again for every k
def top_k(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *,
          ks: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512), sigmas: tuple[float, ...] = (0.1,), parts: int = 10,
          own_train: bool = False, whitened: bool = True, students: bool = False, spec: NoiseSpec = NoiseSpec(),
          items: int = 0) -> Findings:
    """Noise probe of the teacher cut to its top k components (top_k.*, conditions top_k=K and top_k=K/SIGMA; K may be all).

    Unit rows are projected on the k leading principal directions about their train mean, which stays, and the probes are
    fitted again to clean train rows cut alike. `whitened` adds K = whitened: all directions at equal variance. Accuracy is
    given for each of `parts` disjoint stratified parts of the test items (column draw), which gives a spread over images and
    noise where a frozen teacher has no seeds; with `own_train` directions and probes of each are fitted to a part of train of
    its own, so that the spread holds over these too. top_k.*.kept_accuracy is over the items that the whole teacher and every
    cut classify rightly without noise. top_k.chance is one over the number of classes. Students are left out unless `students`.
    """
    labels = need_labels(labels, "stresses.top_k")
    if not ks or min(ks) < 1 or parts < 1:
        raise UserError("stresses.top_k", "ks and parts of at least 1", f"ks={list(ks)}, parts={parts}",
                        "For instance ks: [4, 16, 64].")
    for sigma in sigmas:
        need_range(sigma, "stresses.top_k.sigmas")
    if model.is_student and not students:
        return Findings()
    tested, found = few(test, items, "stresses.top_k"), Findings()
    found.rows.append(Row("top_k.chance", Condition.top_k(WHOLE), None, 1 / len(np.unique(labels)), len(labels), "fraction"))
    train = unit_rows(model.embed(model.train, None, "top_k, train")).astype(np.float64)
    seen: dict[float | None, np.ndarray] = {None: unit_rows(model.embed(tested, None, "top_k, test")).astype(np.float64)}
    for sigma in (s for s in sigmas if s > 0):
        noise = Noise(sigma, spec, 0, seed)  # draw 0 of the noise sweep
        seen[sigma] = unit_rows(model.embed(tested, noise, f"top_k, sigma {sigma:g}")).astype(np.float64)
        named: list[int | str] = [*ks, WHOLE, *([WHITE] if whitened else [])]
        found.conditions |= {Condition.top_k(k, sigma): noise.both_units() for k in named}
    groups, tested_labels = disjoint_parts(tested, parts), need_labels(tested.labels, "stresses.top_k")
    fitted_on = disjoint_parts(model.train, parts) if own_train else [np.arange(len(train))]
    train_labels = need_labels(model.train.labels, "stresses.top_k")
    if own_train and any(len(np.unique(train_labels[part])) < len(np.unique(train_labels)) for part in fitted_on):
        raise UserError("stresses.top_k", f"every class in each of {parts} parts of train", f"{len(train)} train images",
                        "Use more train images, fewer parts, or own_train: false.")
    for i, part in enumerate(fitted_on):
        at = [(i, groups[i])] if own_train else list(enumerate(groups))
        found.rows += _of_part(model, train[part], train_labels[part], seen, tested_labels, at, ks, whitened, found)
    found.skipped = list(dict.fromkeys(found.skipped))
    return found


def _of_part(model: Subject, train: np.ndarray, train_labels: np.ndarray, seen: Mapping[float | None, np.ndarray],
             labels: np.ndarray, groups: list[tuple[int, np.ndarray]], ks: tuple[int, ...], whitened: bool,
             found: Findings) -> list[Row]:
    """Rows of the numbered ``groups`` of test items, by directions and probes that are fitted to ``train`` (n, d)."""
    right: dict[tuple[str, str, float | None], np.ndarray] = {}
    for name, cut in cuts(train, ks, whitened, found).items():
        probes = model.fit(cut(train), train_labels)
        for head, probe in probes.items():
            for level, rows in seen.items():
                right[head, name, level] = probe.predict(cut(rows)) == labels
    made: list[Row] = []
    for (head, name, level), hits in right.items():
        key = f"top_k.{head.split('.')[0] if '.' in head else 'tuned'}.{model.side}"
        always = np.logical_and.reduce([r for (h, n, s), r in right.items() if h == head and s is None and n != WHITE])
        for i, group in groups:
            condition = Condition.top_k(name, level)
            made.append(Row(f"{key}.accuracy", condition, i, float(hits[group].mean()), len(group), "fraction"))
            kept = group[always[group]]
            if level is not None and len(kept):
                made.append(Row(f"{key}.kept_accuracy", condition, i, float(hits[kept].mean()), len(kept), "fraction"))
    return made


def cuts(train: np.ndarray, ks: tuple[int, ...], whitened: bool,
         found: Findings) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name -> unit rows (n, d) to what is left of them: k + 1 coordinates that keep every distance and inner product.

    A row's projection is mean + V V^T (row - mean). In the basis of V and the mean's part outside it, these are V^T row and
    one constant, so that a probe with a rotation-invariant penalty sees the same as in d dimensions.
    """
    mean = train.mean(axis=0)
    centred = train - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(train))
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    made: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for k in sorted(set(ks)):
        if k > len(mean):
            found.skipped.append(f"top_k={k}: the embedding has {len(mean)} dimensions")
            continue
        made[str(k)] = projection(vectors[:, :k], mean)
    made[WHOLE] = lambda rows: rows
    if whitened:
        kept = values > 1e-9 * max(values[0], 1e-300)  # directions beyond float32's rounding
        if kept.any():
            white = vectors[:, kept] / np.sqrt(values[kept])
            made[WHITE] = lambda rows: (rows - mean) @ white
        else:
            found.skipped.append(f"top_k={WHITE}: all embeddings are equal")
    return made


def projection(directions: np.ndarray, mean: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Rows (n, d) to (n, k + 1): coordinates along orthonormal ``directions`` (d, k), and how far the mean lies outside them.

    >>> cut = projection(np.eye(3)[:, :1], np.array([0.0, 0.6, 0.8]))
    >>> cut(np.array([[0.5, 0.1, 0.2]])).tolist()
    [[0.5, 1.0]]
    """
    outside = float(np.linalg.norm(mean - directions @ (directions.T @ mean)))
    return lambda rows: np.hstack([rows @ directions, np.full((len(rows), 1), outside)])


def disjoint_parts(items: Source, count: int) -> list[np.ndarray]:
    """Indices of ``count`` parts that share no item, each with the classes in the proportions of the whole."""
    shuffled = keyed_rng("top_k parts", items.name, items.split).permutation(len(items))
    ordered = shuffled[np.argsort(need_labels(items.labels, "stresses.top_k")[shuffled], kind="stable")]
    return [np.sort(ordered[i::count]) for i in range(min(count, len(items)))]


@stresses.register("noise_probe")
def noise_probe(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *, sigmas: tuple[float, ...] = (0.1, 0.2),
                spec: NoiseSpec = NoiseSpec(), train_items: int = 5000, items: int = 1000) -> Findings:
    """Probes fitted to embeddings of noisy train images, tested at the same sigma (noise_probe.*, condition noise_probe=SIGMA).

    What such a probe recovers was only shifted by the noise; what it does not was lost. Beside it stands the clean probe
    of equal size, fitted to the same `train_items` train images without noise: noise_probe.* at noise_probe=0 (tested
    clean) and noise_probe.*.clean_fit_accuracy (tested at the sigma).
    """
    need_labels(labels, "stresses.noise_probe")
    for sigma in sigmas:
        need_range(sigma, "stresses.noise_probe.sigmas")
    tested, train = few(test, items, "stresses.noise_probe"), few(model.train, train_items, "stresses.noise_probe")
    train_labels = need_labels(train.labels, "stresses.noise_probe")
    clean = model.fit(model.embed(train, None, "noise_probe, train"), train_labels)
    z = model.embed(tested, None, "noise_probe, test")
    found = Findings(rows=_probe_rows(model, clean, z, tested, "accuracy", Condition.of("noise_probe", level=0)))
    for sigma in (s for s in sigmas if s > 0):
        name = Condition.of("noise_probe", level=sigma)
        # Draw 0 of the test noise is that of the noise sweep, for the probes to be tested on the same images.
        noise = Noise(sigma, spec, 0, seed)
        z = model.embed(tested, noise, f"{name}, test")
        noisy = model.fit(model.embed(train, noise, f"{name}, train"), train_labels)
        found.rows += _probe_rows(model, noisy, z, tested, "accuracy", name)
        found.rows += _probe_rows(model, clean, z, tested, "clean_fit_accuracy", name)
        found.conditions[name] = noise.both_units()
    return found


def _probe_rows(model: Subject, probes: Mapping[str, Probe], z: np.ndarray, items: Source, what: str,
                condition: str) -> list[Row]:
    """noise_probe.paper.student.accuracy and its like."""
    return [Row(f"noise_probe.{head.split('.')[0] if '.' in head else 'tuned'}.{model.side}.{what}", condition, None,
                float((probe.predict(z) == items.labels).mean()), len(items), "fraction") for head, probe in probes.items()]
