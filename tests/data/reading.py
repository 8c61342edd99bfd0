"""What the tests of several readers need: tiny pictures, and what a category holds."""

from pathlib import Path

from PIL import Image

from data.samples import Category, Sample

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def put(*paths: Path) -> None:
    """Put a tiny grey picture at each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 128).save(path)


def several(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    paths = [folder / f"{index:03}{suffix}" for index in range(count)]
    put(*paths)
    return paths


def images(samples: list[Sample]) -> list[Path]:
    return [sample.image for sample in samples]


def masks(category: Category) -> dict[str, list[str]]:
    """Return the names of each anomalous image's masks, by `<defect>/<stem>`."""
    return {
        f"{sample.defect}/{sample.image.stem}": [mask.name for mask in sample.masks]
        for sample in category.test
        if sample.label
    }


def assert_held_out(category: Category, training: list[Path], count: int) -> None:
    """Check that train and validation divide `training`, `count` images for validation."""
    train, validation = images(category.train), images(category.validation)
    assert len(validation) == count
    assert sorted(train + validation) == sorted(training)
    assert not set(train) & set(validation)
    good = [(sample.label, sample.defect, sample.masks) for sample in category.train]
    assert set(good) == {(0, "good", ())}
