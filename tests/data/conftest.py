"""A folder of natural images."""

from pathlib import Path

import pytest

from tests.data.photos import photo


@pytest.fixture
def folder(tmp_path) -> Path:
    """Make seven images in two classes."""
    for index in range(7):
        place = tmp_path / "natural" / f"n{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        photo(index).save(place / f"{index}.png")
    return tmp_path / "natural"
