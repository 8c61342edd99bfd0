"""What stored metrics and results must be before a page shows them; templates rely on it."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import PurePosixPath

from data.samples import GOOD
from evaluation.columns import columns
from evaluation.image_metrics import auroc
from evaluation.results import TEST, UNLABELLED, ImageResult

MOST = 1e15  # of any number: more is damage, and no chart's axis
ROUNDING = 1e-6
LEAST_SECONDS = 1e-9  # that anything takes: less is damage, too
SPLITS = {TEST, UNLABELLED}

Check = Callable[[object], bool]


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def is_rate(value: object) -> bool:
    """Tell whether a value lies between 0 and 1."""
    return is_number(value) and -ROUNDING <= value <= 1 + ROUNDING


def is_promise(value: object) -> bool:
    """Tell whether a value is a rate of false alarms that can be promised: 0 cannot."""
    return is_rate(value) and value > 0


def is_duration(value: object) -> bool:
    """Tell whether a value is a number of seconds; 0 where nothing was done."""
    return is_number(value) and (value == 0 or value >= LEAST_SECONDS)


def is_count(value: object) -> bool:
    return isinstance(value, int) and is_number(value) and value >= 0


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_plain(value: object) -> bool:
    """Tell whether a value is one that an option can have, but for a list."""
    return value is None or isinstance(value, bool) or is_text(value) or is_number(value)


def or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def several(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def each(check: Check) -> Check:
    """Return what checks that a value is a dict of such."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def is_option(value: object) -> bool:
    return is_plain(value) or several(is_plain)(value)


def is_curve(value: object) -> bool:
    """Tell whether a value is a list of points whose two coordinates never fall."""
    if not several(several(is_rate))(value) or {len(point) for point in value} - {2}:
        return False
    return all(b[0] >= a[0] and b[1] >= a[1] for a, b in pairwise(value))


OURS: dict[str, tuple[Check, object]] = {  # below `glae`; and what stands for a lack
    **dict.fromkeys(("auroc_pooled", "average_precision", "f1_max"), (or_none(is_rate), None)),
    "pixel_auroc": (or_none(is_rate), None),
    "false_alarm_rate": (or_none(is_promise), None),
    **dict.fromkeys(("threshold", "map_threshold", "curve_error"), (or_none(is_number), None)),
    **dict.fromkeys(("auroc_by_defect", "pixel_auroc_by_defect"), (each(or_none(is_rate)), {})),
    "au_pro_by_defect": (each(or_none(is_rate)), {}),
    "curve": (or_none(is_curve), None),
    "curve_by_defect": (each(or_none(is_curve)), {}),
    "counts": (each(is_count), {}),
    "experts": (each(each(or_none(is_number))), {}),
    "unreadable": (several(is_text), []),
    "seconds": (each(or_none(is_duration)), {}),
    **dict.fromkeys(("seed", "held_out"), (or_none(is_count), None)),
    "verdicts": (each(each(is_count)), {}),
    "options": (each(is_option), {}),
    "versions": (each(is_text), {}),
    **dict.fromkeys(("device", "precision", "images"), (or_none(is_text), None)),
}


def whole_metrics(metrics: dict, dataset: str) -> dict:
    """Return a category's metrics with every key of OURS, which earlier versions did not write.

    Raises ValueError for a value that is not what it should be.
    """
    for name, get in columns(dataset).items():
        if not or_none(is_rate)(get(metrics)):
            raise ValueError(f"its {name} is no rate")
    ours = metrics["glae"]
    whole = ours | {key: ours.get(key, lack) for key, (_, lack) in OURS.items()}
    for key, (check, _) in OURS.items():
        if not check(whole[key]):
            raise ValueError(f"its glae.{key} is no such value")
    return metrics | {"glae": whole}


def check_results(results: list[ImageResult], ours: dict) -> None:
    """Raise ValueError unless results are those of the evaluation whose metrics are `ours`."""
    if outside := next((r.image for r in results if not is_inside(r.image)), None):
        raise ValueError(f"it names {outside}")
    found = Counter(result.split for result in results)
    counts = {split: number for split, number in ours["counts"].items() if split in SPLITS}
    tested = [result for result in results if result.split == TEST]
    scores = [result.score for result in tested]
    area = auroc([int(result.defect != GOOD) for result in tested], scores)
    told, threshold = ours["auroc_pooled"], ours["threshold"]
    agree = (
        found.keys() <= SPLITS,
        not counts or found == Counter(counts),
        {result.defect for result in tested} - {GOOD} == ours["auroc_by_defect"].keys(),
        area == told or (None not in (area, told) and abs(area - told) < ROUNDING),
        threshold is None or all((r.score > threshold) == r.anomalous for r in results),
    )
    if not all(agree):
        raise ValueError("it is of another evaluation than the metrics")


def is_inside(image: str) -> bool:
    """Tell whether an image's place cannot lead out of the folder that it is relative to."""
    place = PurePosixPath(image)
    return not place.is_absolute() and ".." not in place.parts and "\0" not in image
