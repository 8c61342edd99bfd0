"""What tests of sweeps need: a cluster that loses nodes."""

from collections.abc import Iterator

import pytest

from tests.sweeping.cluster import ENVIRONMENT, Nodes, cluster_of


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Nodes]:
    """Three nodes of one core each beside a head, on the loopback interface."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():  # before Ray is imported
            patch.setenv(name, value)
        pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")
        with cluster_of(3) as nodes:
            yield nodes
