"""A run's key figures in words: what it was measured on, what it found, what it promised."""

from collections.abc import Iterator
from typing import NamedTuple

import scipy.stats

from data.samples import GOOD
from evaluation.cells import GAP, percent
from evaluation.columns import columns, shown_columns
from evaluation.verdicts import finds_few
from models.experts import NETWORKS
from reporting.collected import Evaluated

UNLIKELY = 0.025  # that chance gives as many false alarms: the upper end of a 95 % interval


class Figure(NamedTuple):
    text: str
    warning: bool = False


class Defect(NamedTuple):
    """A row of the table of defects."""

    name: str
    cells: list[str]  # number of images, of those found; AUROC, pixel AUROC, AU-PRO in percent


def figures(one: Evaluated) -> list[Figure]:
    """Return the key figures of a run."""
    return [*counted(one), *judged(one), *unreadable(one)]


def values(one: Evaluated) -> list[tuple[str, str]]:
    """Return what was measured of a run, in percent; other limits of sPRO stand below its curve."""
    headline = shown_columns(one.run.dataset, ("headline",))
    getters = columns(one.run.dataset).items()
    shown = [name for name, _ in getters if name in headline or not name.startswith("sPRO")]
    return [(name, percent(get(one.metrics))) for name, get in getters if name in shown]


def counted(one: Evaluated) -> Iterator[Figure]:
    """Yield how many images there were."""
    counts = one.metrics["glae"].get("counts", {})
    if {"train", "validation"} <= counts.keys():
        trained = plural(counts["train"], "good image")
        validation = plural(counts["validation"], "validation image")
        yield Figure(f"Trained on {trained}, with {validation}{held_out(one)}.")
    good, bad = parts(one)
    kinds = len({result.defect for result in bad})
    if good or bad:
        of = f", of {plural(kinds, 'kind')}" if bad else ""
        yield Figure(f"Tested on {len(good)} good and {plural(len(bad), 'defective image')}{of}.")
    if one.unlabelled:
        above = sum(result.anomalous for result in one.unlabelled)
        images = plural(len(one.unlabelled), "image")
        yield Figure(f"Of {images} without a label, {above} are above the threshold.")
    if one.results and not (good and bad):
        yield Figure("There is no AUROC: that takes good and defective test images.")


def held_out(one: Evaluated) -> str:
    """Say which good images set the threshold; "" where that is not known."""
    number, experts = one.metrics["glae"]["held_out"], one.metrics["glae"]["experts"]
    if not number:
        return ""
    fitted = experts and experts.keys().isdisjoint(NETWORKS)
    how = ", each held out in turn (cross-fitting)" if fitted else ""
    return f"; the threshold is set by {plural(number, 'held-out good image')}{how}"


def judged(one: Evaluated) -> Iterator[Figure]:
    """Yield what the stored threshold finds, and whether its promise was kept."""
    good, bad = parts(one)
    threshold = one.metrics["glae"].get("threshold")
    if not (good or bad) or threshold is None:
        return
    found = sum(result.anomalous for result in bad)
    if bad:
        text = f"The stored threshold of {threshold:.4g} finds {share(found, len(bad))} defects."
        yield Figure(text)
    auroc = one.metrics["glae"]["auroc_pooled"]
    if finds_few(auroc, found, len(bad)):
        yield Figure(
            f"Scores tell defects from good images (AUROC {percent(auroc)} %), yet few defects "
            "are above the stored threshold: it stands at the strangest of the held-out good "
            "images, or near it. More good images or a higher --false_alarm_rate find more.",
            warning=True,
        )
    if good:
        yield false_alarms(one, sum(result.anomalous for result in good), len(good))


def false_alarms(one: Evaluated, alarms: int, good: int) -> Figure:
    """Say how many false alarms there were, and whether that is in keeping with the promise."""
    text = f"False alarms: {share(alarms, good)} good test images"
    promised = one.metrics["glae"].get("false_alarm_rate")
    if promised is None:
        return Figure(f"{text}; nothing was promised.")
    text += f"; at most {percent(promised)} % are promised"
    if alarms <= promised * good:
        return Figure(f"{text}, and kept.")
    chance = chance_of(alarms, good, promised, one.metrics["glae"]["held_out"])
    if chance >= UNLIKELY:
        often = f"{100 * chance:.0f} % of cases"
        return Figure(f"{text}: in keeping with it, as chance gives that many in {often}.")
    return Figure(
        f"{text}: more than chance explains (p = {chance:.2g}). Were the test images taken like "
        "those of the training?",
        warning=True,
    )


def chance_of(alarms: int, good: int, promised: float, held_out: int | None) -> float:
    """Return how likely at least so many false alarms are where the promise holds.

    The rate of a threshold that k = `promised` (n + 1) of n `held_out` images and a new one reach
    is distributed as Beta(k, n + 1 - k) over calibrations (Vovk, 2012), so that the number of
    alarms is beta-binomial; where n is not known, binomial, as if it were large.
    """
    if held_out is None:
        return float(scipy.stats.binom.sf(alarms - 1, good, promised))
    k = promised * (held_out + 1)
    return float(scipy.stats.betabinom.sf(alarms - 1, good, k, held_out + 1 - k))


def unreadable(one: Evaluated) -> Iterator[Figure]:
    if left_out := one.metrics["glae"].get("unreadable"):
        text = f"{plural(len(left_out), 'test image')} could not be read and did not count."
        yield Figure(text, warning=True)


def parts(one: Evaluated) -> tuple[list, list]:
    """Return the results of the good and of the defective test images."""
    good = [result for result in one.labelled if result.defect == GOOD]
    return good, [result for result in one.labelled if result.defect != GOOD]


def defects(one: Evaluated) -> list[Defect]:
    """Return how well each kind of defect is told from good images."""
    ours, (_, bad) = one.metrics["glae"], parts(one)
    pixels, areas = ours["pixel_auroc_by_defect"], ours.get("au_pro_by_defect", {})
    rows = []
    for name, auroc in ours["auroc_by_defect"].items():
        verdicts = [result.anomalous for result in bad if result.defect == name]
        known = [str(len(verdicts)), str(sum(verdicts))] if one.results else [GAP, GAP]
        rates = (auroc, pixels.get(name), areas.get(name))
        rows.append(Defect(name, [*known, *map(percent, rates)]))
    return rows


def share(part: int, whole: int) -> str:
    """Return a part of a whole in words, with percent."""
    return f"{part} of {whole} ({percent(part / whole)} %)"


def plural(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
