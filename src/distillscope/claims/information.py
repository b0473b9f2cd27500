"""information: does a larger student keep more of what distinguishes images?"""

from __future__ import annotations

import math

from distillscope.claims.collapse import slopes
from distillscope.claims.results import Results, Undecided
from distillscope.claims.statements import Endpoint, above
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.statistics import paired

LEAST_K, SHARE = 1024, 0.01
CHOSEN = "infonce_chosen_temperature"
BESIDE = (("contrastive.infonce", "InfoNCE at K 1,024 or more, temperature 0.1", "nats"),
          ("paper.infonce", "the paper's InfoNCE (K 64)", "nats"),
          ("contrastive.retained_share", "share of the teacher's own retention, temperature 0.1", "share"),
          ("student.uniformity", "uniformity", "log kernel"))


@claims.register("information", sentence="InfoNCE falls with size: larger students keep more information.", seeds=5)
def information(results: Results) -> Finding:
    """InfoNCE falls with size: larger students keep more information.

    Contrastive retention, (log K - InfoNCE) / log K with K of 1,024 or more, of the largest less that of the smallest student
    under the plain arm (paired t), each at the temperature that is best for it on validation images (on the test images
    themselves in runs without them, and then a note says so).

    Supported where it is shown to be above 0.01 (a hundredth of the ceiling); refuted where it is shown to be below that.
    Undecided where K is smaller or the loss is saturated. Of mutual information nothing is said: teacher and student are
    deterministic functions of one image, so that it is not finite in general.
    """
    arm = results.baseline()
    sizes = results.sizes(arm)
    apart = all(len(results.values(arm, label, f"contrastive.{CHOSEN}")) for label in sizes)
    chosen, kept = CHOSEN if apart else "infonce_best_temperature", {}
    for label in sizes:
        ceiling, loss = (results.values(arm, label, f"contrastive.{k}") for k in ("ceiling", chosen))
        if loss.empty:
            raise Undecided("InfoNCE was not measured")
        if ceiling.min() < math.log(LEAST_K) - 1e-9:
            raise Undecided(f"K is {math.exp(ceiling.min()):.0f}, and this claim needs {LEAST_K:,} test images or more")
        kept[label] = (ceiling - loss) / ceiling
    small, large = sizes[0], sizes[-1]
    if all(results.values(arm, label, "contrastive.saturated").mean() > 0.5 for label in (small, large)):
        raise Undecided("InfoNCE is saturated at this K (below a tenth of its ceiling), so it cannot distinguish students")
    of_large, of_small = results.together(f"retention of {large} and {small}", kept[large], kept[small])
    words = f"{large} keeps {of_large.mean():.3f} of log K, {small} {of_small.mean():.3f}"
    statement = above(f"contrastive retention rises with size ({words}); mutual information is not shown by it",
                      f"contrastive retention does not rise with size ({words})",
                      Endpoint(f"contrastive retention, {large} - {small}", "share of log K"), paired(of_large - of_small),
                      SHARE)
    notes = () if apart else ("The temperature was chosen on the test images: no validation images, or an older run.",)
    return Finding(statement, ("figure information", f"contrastive.{chosen} and contrastive.ceiling, clean"),
                   {"students": ", ".join(sizes)}, secondary=tuple(beside(results, sizes, kept)), notes=notes)


def beside(results: Results, sizes: list[str], kept: dict) -> list[Secondary]:
    """The trend over sizes; InfoNCE at 0.1 and as in the paper; uniformity."""
    arm, found = results.baseline(), []
    trend = slopes(results, arm, sizes, kept)
    if len(trend) > 1 and len(sizes) > 2:
        found.append(secondary("contrastive retention per doubling of the parameters", paired(trend), "share of log K"))
    for key, name, unit in BESIDE:
        difference = (results.values(arm, sizes[-1], key) - results.values(arm, sizes[0], key)).dropna()
        if len(difference) > 1:
            found.append(secondary(f"{name}, {sizes[-1]} - {sizes[0]}", paired(difference), unit))
    return found
