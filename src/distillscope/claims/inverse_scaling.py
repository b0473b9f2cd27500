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

    Accuracy of the smallest less that of the largest student of one network under the plain arm, at sigma 0.1 (the paper's;
    the middle of the sweep where it has no 0.1), draws averaged, with the clean probe: paired t over ten seeds or more that
    share order and noise; Welch where the sizes were run with different seeds.

    Supported where it is shown to be above one point of accuracy, the smallest effect that counts; refuted where it is shown
    to be below that; undecided where the noise takes less than two points from both, or leaves chance to both. Other sigmas,
    the trend over all sizes, and what each loses and keeps of its own clean accuracy are secondary: a student may lose more and
    still be the more accurate one.
    """
    arm, sigma = results.baseline(), results.sigma()
    sizes = results.sizes(arm)
    small, large = sizes[0], sizes[-1]
    of_small, of_large = (results.accuracy(arm, s, sigma) for s in (small, large))
    contrast = results.difference(f"accuracy of {small} and {large} at {sigma}", of_small, of_large)
    results.harmed(sigma, *((results.accuracy(arm, s), noisy) for s, noisy in ((small, of_small), (large, of_large))))
    lost = {s: 100 * float((results.accuracy(arm, s) - noisy).mean()) for s, noisy in ((small, of_small), (large, of_large))}
    words = (f"at {sigma} {small} reaches {100 * of_small.mean():.1f} % and {large} {100 * of_large.mean():.1f} % "
             f"(from clean images they lose {lost[small]:.1f} and {lost[large]:.1f} points)")
    statement = above(f"the larger student is less accurate under noise: {words}",
                      f"the larger student is not less accurate under noise: {words}",
                      Endpoint(f"accuracy of {small} - {large} at {sigma}", "points", 100.0), contrast, POINT)
    return Finding(statement, ("figure noise", f"{results.accuracy_key()}, {sigma}, arm {arm.name}"),
                   {"students": f"{small}, {large}", "objective": arm.objective}, secondary=tuple(beside(results, sizes)))


def beside(results: Results, sizes: list[str]) -> list[Secondary]:
    """Every sigma: the same difference, the trend per doubling, and the difference of retentions."""
    arm, found = results.baseline(), []
    clean = {s: results.accuracy(arm, s) for s in sizes}
    for condition in ["clean", *results.sigmas()]:
        noisy = {s: results.accuracy(arm, s, condition) for s in sizes}
        difference = (noisy[sizes[0]] - noisy[sizes[-1]]).dropna()
        if len(difference) > 1 and condition != results.sigma():
            found.append(secondary(f"accuracy of {sizes[0]} - {sizes[-1]}, {condition}", paired(difference), "points", 100.0))
        lost = (clean[sizes[-1]] - noisy[sizes[-1]] - clean[sizes[0]] + noisy[sizes[0]]).dropna()
        if len(lost) > 1 and condition != "clean":
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
