"""What a table shows of a dataset's metrics: a column's name → where its value lies."""

from collections.abc import Callable

from data.catalog import DATASETS
from evaluation.protocol import LOCO_SUBSETS, SPRO_LIMITS

SUBSETS = (*LOCO_SUBSETS, "mean")

Getter = Callable[[dict], float | None]


def _short(subset: str) -> str:
    return subset.removesuffix("_anomalies")


def _auroc(subset: str) -> Getter:
    return lambda m: m["classification"]["auc_roc"][subset]


def _spro(subset: str, limit: str) -> Getter:
    return lambda m: m["localization"]["auc_spro"][subset][limit]


def _ours(key: str) -> Getter:
    return lambda m: m["glae"][key]


POOLED = {
    "AP": _ours("average_precision"),
    "F1max": _ours("f1_max"),
    "pixel AUROC": _ours("pixel_auroc"),
}
PRO_COLUMNS: dict[str, Getter] = {
    "AUROC": lambda m: m["classification_au_roc"],
    **POOLED,
    "AU-PRO 0.3": lambda m: m["au_pro"],
}
SPRO_COLUMNS: dict[str, Getter] = {
    **{f"AUROC {_short(subset)}": _auroc(subset) for subset in SUBSETS},
    "AUROC pooled": _ours("auroc_pooled"),
    **POOLED,
    **{
        f"sPRO {limit} {_short(subset)}": _spro(subset, str(limit))
        for limit in SPRO_LIMITS
        for subset in SUBSETS
    },
}
COLUMN_CHOICES = ("headline", "all")
HEADLINE_LIMIT = 0.05  # of sPRO, what papers report
# What a terminal of 100 columns has room for; csv and json have every column.
HEADLINE = {
    "AUROC pooled",
    *(f"AUROC {_short(subset)}" for subset in SUBSETS),
    *(f"sPRO {HEADLINE_LIMIT} {_short(subset)}" for subset in SUBSETS),
}


def columns(dataset: str) -> dict[str, Getter]:
    """Return what is reported of a dataset: column name -> how to get it from the metrics."""
    return SPRO_COLUMNS if DATASETS[dataset].saturated else PRO_COLUMNS


def shown_columns(dataset: str, which: str) -> list[str]:
    """Return the columns of one of COLUMN_CHOICES; where there are no subsets all have room."""
    names = list(columns(dataset))
    if which == "all" or not DATASETS[dataset].saturated:
        return names
    return [name for name in names if name in HEADLINE]
