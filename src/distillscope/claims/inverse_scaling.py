"""inverse-scaling: is the larger student the more brittle one?"""

from __future__ import annotations

from distillscope.claims.collapse import slopes
from distillscope.claims.results import Results
from distillscope.claims.statements import Endpoint, above
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.statistics import paired

POINT = 0.01


@claims.register("inverse-scaling", sentence="Larger students are more brittle.", seeds=10)
def inverse_scaling(results: Results) -> Finding:
    """Larger students are more brittle.

    Brittle is who loses much of what it had: clean less noisy accuracy, at the deciding sigma (`noise.decides`, set before the
    run where the smallest student loses some ten points; else 0.1, the paper's), with the clean probe. The loss of the largest
    less that of the smallest student of one network under the plain arm: paired t over ten seeds or more that share order and
    noise; Welch where the sizes were run with different seeds.

    Supported where it is shown to be above one point of accuracy, the smallest effect that counts; refuted where it is shown
    to be below that; undecided where the noise takes less than two points from both, or leaves chance to both. Other sigmas,
    the trend over all sizes, accuracy under noise and the share of clean accuracy kept are secondary: who loses more may still
    be the more accurate one.
    """
    arm, sigma = results.baseline(), results.sigma()
    sizes = results.sizes(arm)
    small, large = sizes[0], sizes[-1]
    clean, noisy = ({s: results.accuracy(arm, s, c) for s in (small, large)} for c in ("clean", sigma))
    lost = {s: (clean[s] - noisy[s]).dropna() for s in (small, large)}
    contrast = results.difference(f"accuracy of {small} and {large} at {sigma}", lost[large], lost[small])
    results.harmed(sigma, *((clean[s], noisy[s]) for s in (small, large)))
    compared = {s: lost[s].index for s in (small, large)}
    if contrast.test == "paired t":
        compared = dict.fromkeys(compared, lost[large].index.intersection(lost[small].index))
    by_size = {s: (100 * lost[s][seeds].mean(), 100 * noisy[s][seeds].mean()) for s, seeds in compared.items()}
    words = (f"at {sigma} {large} loses {by_size[large][0]:.1f} points of its accuracy and {small} {by_size[small][0]:.1f} "
             f"(to {by_size[large][1]:.1f} and {by_size[small][1]:.1f} %)")
    endpoint = Endpoint(f"points of clean accuracy lost at {sigma}, {large} - {small}", "points", 100.0)
    statement = above(f"the larger student loses more: {words}", f"the larger student does not lose a point more: {words}",
                      endpoint, contrast, POINT)
    return Finding(statement, ("figure noise", f"{results.accuracy_key()}, clean and {sigma}, arm {arm.name}"),
                   {"students": f"{small}, {large}", "objective": arm.objective}, secondary=tuple(beside(results, sizes)))


def beside(results: Results, sizes: list[str]) -> list[Secondary]:
    """Every sigma: the same difference, the trend per doubling, and the difference of retentions."""
    arm, found = results.baseline(), []
    clean = {s: results.accuracy(arm, s) for s in sizes}
    for condition in ["clean", *results.sigmas()]:
        noisy = {s: results.accuracy(arm, s, condition) for s in sizes}
        difference = (noisy[sizes[0]] - noisy[sizes[-1]]).dropna()
        if len(difference) > 1:
            found.append(secondary(f"accuracy of {sizes[0]} - {sizes[-1]}, {condition}", paired(difference), "points", 100.0))
        lost = (clean[sizes[-1]] - noisy[sizes[-1]] - clean[sizes[0]] + noisy[sizes[0]]).dropna()
        if len(lost) > 1 and condition not in ("clean", results.sigma()):
            name = f"points of clean accuracy lost, {sizes[-1]} - {sizes[0]}, {condition}"
            found.append(secondary(name, paired(lost), "points", 100.0))
        kept = (noisy[sizes[0]] / clean[sizes[0]] - noisy[sizes[-1]] / clean[sizes[-1]]).dropna()
        if len(kept) > 1 and condition != "clean":
            name = f"share of clean accuracy kept, {sizes[0]} - {sizes[-1]}, {condition}"
            found.append(secondary(name, paired(kept), "points", 100.0))
        trend = slopes(results, arm, sizes, noisy)
        if len(trend) > 1 and len(sizes) > 2:
            found.append(secondary(f"accuracy per doubling of the parameters, {condition}", paired(trend), "points", 100.0))
    return found
