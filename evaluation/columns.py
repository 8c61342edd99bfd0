"""What a table shows of a dataset's metrics: a column's name → where its value lies."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from data.catalog import DATASETS
from evaluation.protocol import LOCO_SUBSETS, SPRO_LIMITS

SUBSETS = (*LOCO_SUBSETS, "mean")

Chosen = Sequence[str]  # names of columns, or of COLUMN_CHOICES
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


def shown_columns(dataset: str, which: Chosen) -> list[str]:
    """Return which columns a dataset has of those named, or of COLUMN_CHOICES.

    Where there are no subsets, all have room in the headline.
    """
    names, wanted = list(columns(dataset)), {*which}
    if "all" in which or ("headline" in which and not DATASETS[dataset].saturated):
        return names
    wanted |= HEADLINE if "headline" in which else set()
    return [name for name in names if name in wanted]


def check_columns(which: Chosen) -> list[str]:
    """Return a fault for each of --columns that no dataset has, with the nearest that there is."""
    known = {name.lower(): name for name in (*COLUMN_CHOICES, *SPRO_COLUMNS, *PRO_COLUMNS)}
    return [
        f"--columns: there is no {name!r}: {known[near[0]]}?"
        if (near := get_close_matches(name.lower(), known, n=1))
        else f"--columns: there is no {name!r}: name headline, all, or columns of the table of all"
        for name in which
        if name not in known.values()
    ]


def check_shown(datasets: Iterable[str], which: Chosen) -> list[str]:
    """Return the fault of --columns that none of the datasets has, if it is one."""
    if any(shown_columns(dataset, which) for dataset in datasets):
        return []
    return [
        f"--columns: {dataset} has no {' or '.join(which)}, but {', '.join(columns(dataset))}"
        for dataset in datasets
    ]
