"""The interval of a difference between two models: a paired bootstrap over the images."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from evaluation.comparison import RESAMPLES, difference, resampled
from evaluation.results import UNLABELLED, ImageResult

LOGICAL, STRUCTURAL = "logical_anomalies", "structural_anomalies"
COUNTS = {"good": 25, LOGICAL: 15, STRUCTURAL: 10}


def run(seed: int, shift: float, **counts: int) -> list[ImageResult]:
    """Make one run's results: rounded scores, so that some are equal; defects are `shift` above."""
    rng, results = np.random.default_rng(seed), []
    for defect, count in (COUNTS | counts).items():
        scores = rng.normal(shift * (defect != "good"), 1, count).round(1)
        results += [image(defect, index, score) for index, score in enumerate(scores)]
    return results


def image(defect: str, index: int, score: float, split: str = "test") -> ImageResult:
    place = f"{defect}/{index:03}.png"
    return ImageResult(place, split, defect, float(score), None, "good", None, {})


def auroc(results: list[ImageResult], *kinds: str) -> float:
    """Return scikit-learn's mean over `kinds`, or that of all defects together."""
    kept = [[r for r in results if r.defect in ("good", kind)] for kind in kinds] or [results]
    return np.mean(
        [roc_auc_score([r.defect != "good" for r in k], [r.score for r in k]) for k in kept]
    )


@pytest.fixture(scope="module")
def models() -> tuple[list, list]:
    """Two seeds of one model, three of a better one."""
    return [run(0, 0.8), run(1, 0.7)], [run(seed, 1.3) for seed in (2, 3, 4)]


@pytest.mark.parametrize(
    ("column", "kinds"),
    [
        ("AUROC pooled", ()),
        ("AUROC", ()),
        ("AUROC logical", (LOGICAL,)),
        ("AUROC structural", (STRUCTURAL,)),
        ("AUROC mean", (LOGICAL, STRUCTURAL)),
    ],
)
def test_the_difference_is_that_of_the_means_over_seeds(models, column, kinds):
    first, other = ([auroc(results, *kinds) for results in runs] for runs in models)
    found = resampled(*models, column, "bolt")
    assert found.value == pytest.approx(np.mean(other) - np.mean(first), abs=1e-12)
    assert found.left_out == 0


@pytest.mark.parametrize(
    ("column", "sizes"), [("AUROC pooled", (25, 25)), ("AUROC mean", (25, 15, 10))]
)
def test_the_interval_is_that_of_scipys_bootstrap(models, column, sizes):
    """Over indices of images, good ones and each kind of defect, the same for all runs."""
    splits = [np.split([r.score for r in results], (25, 40)) for runs in models for results in runs]

    def statistic(*drawn):
        total = 0.0
        for scores, sign in zip(splits, (-1 / 2, -1 / 2, 1 / 3, 1 / 3, 1 / 3), strict=True):
            good, *kinds = scores if len(drawn) == 3 else (scores[0], np.concatenate(scores[1:]))
            for kind, chosen in zip(kinds, drawn[1:], strict=True):
                above = kind[chosen][:, None] - good[drawn[0]]
                total += sign / len(kinds) * ((above > 0) + (above == 0) / 2).mean()
        return total

    rng = np.random.default_rng(5)
    options = {"vectorized": False, "method": "percentile", "n_resamples": 2000, "rng": rng}
    theirs = bootstrap(
        [np.arange(size) for size in sizes], statistic, **options
    ).confidence_interval
    ours = difference([resampled(*models, column, "bolt")])
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.1 * width)


def test_a_model_does_not_differ_from_itself_by_any_draw(models):
    """So the draws are the same for both."""
    found = resampled(models[0], models[0], "AUROC mean", "bolt")
    assert not found.draws.any()


def test_the_mean_over_categories_averages_their_draws_which_are_independent(models):
    one, other = (resampled(*models, "AUROC pooled", name) for name in ("bolt", "nut"))
    assert abs(np.corrcoef(one.draws, other.draws)[0, 1]) < 0.1
    alone, both = difference([one]), difference([one, other])
    low, high = np.percentile((one.draws + other.draws) / 2, (2.5, 97.5))
    assert both == pytest.approx((alone.value, low, high))
    assert (both.high - both.low) / (alone.high - alone.low) == pytest.approx(0.5**0.5, abs=0.05)


def test_the_same_images_give_the_same_interval_in_any_order(models):
    again = [[results[::-1] for results in runs] for runs in models]
    found, other = (resampled(*of, "AUROC mean", "bolt") for of in (models, again))
    np.testing.assert_array_equal(found.draws, other.draws)
    assert len(found.draws) == RESAMPLES


def test_images_count_that_all_runs_have_with_a_label(models):
    """A run lacks one image, another has one that no other has, and one without a label."""
    first, (one, *rest) = models
    more = [*one, image(LOGICAL, 99, 50), image("new", 0, 50, UNLABELLED)]
    less = [r for r in first[0] if r.image != "good/000.png"]
    found = resampled([less, first[1]], [more, *rest], "AUROC pooled", "bolt")
    assert found.left_out == 2
    kept = [[[r for r in run if r.image != "good/000.png"] for run in runs] for runs in models]
    assert found.value == resampled(*kept, "AUROC pooled", "bolt").value


@pytest.mark.parametrize("lacking", ["good", LOGICAL])
def test_there_is_no_interval_where_a_kind_lacks(models, lacking):
    runs = [[[r for r in run if r.defect != lacking] for run in of] for of in models]
    assert resampled(*runs, "AUROC mean", "bolt") is None
