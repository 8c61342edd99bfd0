"""What tests of the examples share: an exported file."""

from tests.deployment.conftest import exported

__all__ = ["exported"]
