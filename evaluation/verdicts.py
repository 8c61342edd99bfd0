"""What is said of each image of a test set, and how many are called anomalous."""

import torch

from data.samples import ANOMALOUS, GOOD, Category
from evaluation.maps import Scores
from evaluation.results import TEST, UNLABELLED, ImageResult
from models.detector import Detector
from scoring.scorer import SCORE
from scoring.thresholds import good_scores, is_anomalous, p_values
from utils.commands import printable, say

# Where a threshold, rather than the scores, is worth a word; nothing is decided by these.
HIGH_AUROC = 0.9
FEW_FOUND = 0.5  # part of the defects


def image_results(category: Category, scores: Scores, detector: Detector) -> list[ImageResult]:
    """Return the result of each image that was scored, in order.

    There is no p-value by a detector of an earlier version.
    """
    samples = [sample for sample in category.scored if sample.image in scores]
    values = [scores[sample.image].scores[SCORE] for sample in samples]
    p = p_values(good_scores(detector), torch.tensor(values))
    p = [None] * len(samples) if p is None else p.tolist()
    threshold, unlabelled = detector.threshold.item(), set(category.unlabelled)
    return [
        ImageResult(
            sample.place.as_posix(),
            UNLABELLED if sample in unlabelled else TEST,
            sample.defect,
            value,
            chance,
            ANOMALOUS if is_anomalous(value, threshold) else GOOD,
            scores[sample.image].seconds,
            {name: own for name, own in scores[sample.image].scores.items() if name != SCORE},
        )
        for sample, value, chance in zip(samples, values, p, strict=True)
    ]


def verdicts(category: Category, scores: Scores, threshold: float) -> dict[str, dict[str, int]]:
    """Return how many test images of each defect, and how many good ones, have which verdict."""
    counts: dict[str, dict[str, int]] = {}
    for sample in category.test:
        of_defect = counts.setdefault(sample.defect, {ANOMALOUS: 0, GOOD: 0})
        above = is_anomalous(scores[sample.image].scores[SCORE], threshold)
        of_defect[ANOMALOUS if above else GOOD] += 1
    return counts


def tell_verdicts(where: str, metrics: dict) -> None:
    """Say how many test images are called anomalous, and by what; nothing of none with a label."""
    if metrics["glae"]["verdicts"]:
        say(printable(f"{where}: {verdict_text(metrics['glae'])}"))


def finds_few(auroc: float | None, found: int, defective: int) -> bool:
    """Tell whether few defects are above a threshold although scores tell them from good images."""
    return auroc is not None and auroc >= HIGH_AUROC and found < FEW_FOUND * defective


def verdict_text(ours: dict) -> str:
    """Return the verdicts in words, and a mend where AUROC promises more than is found.

    `ours` is what a metrics file has under `glae`.
    """
    bad = [of for defect, of in ours["verdicts"].items() if defect != GOOD]
    found, defective = (sum(of[ANOMALOUS] for of in bad), sum(sum(of.values()) for of in bad))
    parts = [f"{found} of {defective} defective"] if bad else []
    if good := ours["verdicts"].get(GOOD):
        parts.append(f"{good[ANOMALOUS]} of {sum(good.values())} good")
    text = f"{' and '.join(parts)} test images are called anomalous"
    if count := ours["held_out"]:
        images, rate = f"held-out good image{'s' * (count != 1)}", 100 * ours["false_alarm_rate"]
        text += f", at a threshold that {count} {images} set for at most {rate:.2g} % false alarms"
    auroc = ours["auroc_pooled"]
    if not finds_few(auroc, found, defective):
        return text
    return (
        f"{text}; by AUROC {100 * auroc:.1f} a lower threshold would find more: add good images "
        "(calibrate.py), or allow more false alarms (--false_alarm_rate)"
    )
