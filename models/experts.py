"""The names of the four experts, each of which has a map and a score of an image."""

from collections.abc import Iterable

NETWORKS = ("student", "autoencoder")
STATISTICS = ("position", "composition")
EXPERTS = (*NETWORKS, *STATISTICS)
COMBINED = "combined"
SCORED = (COMBINED, *EXPERTS)


def chosen(group: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of `group`, which is NETWORKS, STATISTICS or EXPERTS, among `names`."""
    names = set(names)
    return tuple(name for name in group if name in names)
