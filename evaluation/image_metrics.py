"""Image-level metrics, from scikit-learn. What cannot be computed is None, never a number.

scikit-learn is imported where it is used: that takes a second, and neither `--check` nor a message
about a wrong option should wait for it.
"""

from collections.abc import Sequence

import numpy as np


def auroc(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """Return the area under the ROC curve; None unless both classes are there."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(set(labels)) == 2 else None


def average_precision(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """Return the average precision; None unless both classes are there."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if len(set(labels)) == 2 else None


def f1_max(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """Return the best F1 over all thresholds; None unless both classes are there."""
    from sklearn.metrics import precision_recall_curve

    if len(set(labels)) != 2:
        return None
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None when there are none, or one of them is None."""
    return None if not values or None in values else float(np.mean(values))
