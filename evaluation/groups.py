"""Which runs are seeds of one model, to be averaged, and what tells the others apart."""

from collections.abc import Sequence
from itertools import count

Categories = dict[str, dict]  # category -> its metrics


def decided_by(metrics: dict) -> dict:
    """Return what decided a result: the options but for the seed, and the images."""
    ours = metrics["glae"]
    return ours.get("options", {}) | ({"images": ours["images"]} if "images" in ours else {})


def agree(one: Categories, other: Categories) -> bool:
    """Tell whether two runs may be seeds of one model, as far as both say what they are."""
    for category in one.keys() & other.keys():
        a, b = decided_by(one[category]), decided_by(other[category])
        if any(a[key] != b[key] for key in a.keys() & b.keys()):
            return False
    return True


def grouped(runs: Sequence[Categories]) -> dict[str, list[Categories]]:
    """Return the runs that differ in their seed alone by what tells them from others.

    That is "" where all do.
    """
    groups: list[list[Categories]] = []
    for run in runs:
        fitting = (group for group in groups if all(agree(run, other) for other in group))
        group = next(fitting, None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    if len(groups) < 2:
        return {"": list(runs)}
    named: dict[str, list[Categories]] = {}
    for group, name in zip(groups, names_of(groups), strict=True):
        taken = (f"{name} ({number})" if number > 1 else name for number in count(1))
        named[next(other for other in taken if other not in named)] = group
    return named


def names_of(groups: list[list[Categories]]) -> list[str]:
    """Return for each group the options in which it differs from another, with their values."""
    found = []  # of each group: option -> its values
    for group in groups:
        values: dict[str, set[str]] = {}
        for metrics in (metrics for run in group for metrics in run.values()):
            for key, value in decided_by(metrics).items():
                values.setdefault(key, set()).add(str(value))
        found.append(values)
    differing = [key for key in found[0] if any(of.get(key) != found[0][key] for of in found)]
    return [
        ", ".join(f"{key} {'/'.join(sorted(of[key]))}" for key in differing if key in of)
        for of in found
    ]
