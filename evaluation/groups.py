"""Which runs are seeds of one model, to be averaged, and what tells the others apart."""

from collections.abc import Sequence
from itertools import count, product

Categories = dict[str, dict]  # category -> its metrics


def decided_by(metrics: dict) -> dict:
    """Return what decided a result: the options but for the seed, and the images."""
    ours = metrics["glae"]
    return ours.get("options", {}) | ({"images": ours["images"]} if "images" in ours else {})


def agree(one: Categories, other: Categories) -> bool:
    """Tell whether two runs may be seeds of one model, as far as both say what they are.

    Where they have no category in common, two of their categories must have the same options.
    """
    common = one.keys() & other.keys()
    if common:
        return all(same(decided_by(one[name]), decided_by(other[name])) for name in common)
    options = [[decided_by(m) | {"images": None} for m in run.values()] for run in (one, other)]
    return any(same(a, b) for a, b in product(*options))


def same(one: dict, other: dict) -> bool:
    """Tell whether two runs were decided by the same, as far as both say by what."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


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
    """Return for each group the options in which it differs from another, with their values.

    One that says nothing of an option does not differ by it. The images are told where nothing else
    tells them apart.
    """
    found = []  # of each group: option -> its values
    for group in groups:
        values: dict[str, set[str]] = {}
        for metrics in (metrics for run in group for metrics in run.values()):
            for key, value in decided_by(metrics).items():
                values.setdefault(key, set()).add(in_words(value))
        found.append(values)
    keys = dict.fromkeys(key for of in found for key in of)
    keys = [key for key in keys if len({frozenset(of[key]) for of in found if key in of}) > 1]
    named = [listed(of, [key for key in keys if key != "images"]) for of in found]
    return named if len({*named}) == len(named) else [listed(of, keys) for of in found]


def listed(values: dict[str, set[str]], keys: list[str]) -> str:
    """Return options and their values in words."""
    return ", ".join(f"{key} {'/'.join(sorted(values[key]))}" for key in keys if key in values)


def in_words(value: object) -> str:
    """Return an option's value as one would type it."""
    if isinstance(value, list):
        return " ".join(map(in_words, value))
    return "none" if value is None else str(value)
