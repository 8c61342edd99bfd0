"""The drawn demo: repeatable, complete, its masks true to what is drawn, never half there."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import demo
from data.catalog import find_root, read_category
from data.images import decode

LOGICAL = (
    "missing_part",
    "extra_part",
    "swapped_part",
    "wrong_fill",
    "wrong_label",
    "missing_label",
)
STRUCTURAL = ("scratch", "stain", "broken_part")


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """Draw the whole category once."""
    folder = tmp_path_factory.mktemp("demo") / "kit"
    demo.draw_category(folder)
    return folder


@pytest.fixture
def few(monkeypatch):
    """Let drawings be small: three images a split, one for each defect."""
    monkeypatch.setattr(demo, "COUNTS", dict.fromkeys(demo.COUNTS, 3))
    monkeypatch.setattr(demo, "EACH_DEFECT", 1)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def defect_of(folder: Path, mask: np.ndarray) -> dict:
    """Look up a mask's value in the table of defects."""
    (value,) = set(np.unique(mask).tolist()) - {0}
    table = json.loads((folder / "defects_config.json").read_text())
    (entry,) = (entry for entry in table if entry["pixel_value"] == value)
    return entry


# Repeatability


def test_the_same_seed_draws_the_same_bytes(few, tmp_path):
    demo.draw_category(tmp_path / "a", seed=3)
    demo.draw_category(tmp_path / "b", seed=3)
    first = contents(tmp_path / "a")
    assert len(first) == 3 * 3 + 9 + 9 + 1
    assert first == contents(tmp_path / "b")


def test_another_seed_draws_other_images(few, tmp_path):
    demo.draw_category(tmp_path / "a", seed=0)
    demo.draw_category(tmp_path / "b", seed=1)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.keys() == second.keys()
    images = [name for name in first if not name.startswith("ground_truth")]
    same = [name for name in images if first[name] == second[name]]
    assert same == ["defects_config.json"]


def test_an_image_does_not_depend_on_how_many_are_drawn(few, kit, tmp_path):
    demo.draw_category(tmp_path / "a")
    small, whole = contents(tmp_path / "a"), contents(kit)
    for name in (f"{split}/00{i}.png" for split in demo.COUNTS for i in range(3)):
        assert small[name] == whole[name]


def test_no_two_images_are_alike(kit):
    pictures = [data for name, data in contents(kit).items() if "ground_truth" not in name]
    assert len(set(pictures)) == len(pictures)


# The layout


def test_the_demo_is_read_as_any_other_category(kit):
    category = read_category("demo", kit.parent, None, seed=0)
    assert category.name == "kit"
    assert (len(category.train), len(category.validation)) == (80, 24)
    counts = Counter((sample.label, sample.defect) for sample in category.test)
    assert counts == {
        (0, "good"): 24,
        (1, "logical_anomalies"): 5 * len(LOGICAL),
        (1, "structural_anomalies"): 5 * len(STRUCTURAL),
    }
    sizes = {decode(sample.image).size for sample in category.test + category.train[:3]}
    assert sizes == {(320, 256)}


def test_every_anomaly_has_a_mask_whose_value_is_in_the_table(kit):
    category = read_category("demo", kit.parent, "kit", seed=0)
    seen = Counter()
    for sample in category.test:
        assert len(sample.masks) == sample.label
        for mask in map(grey, sample.masks):
            assert mask.shape == (256, 320)
            name = defect_of(kit, mask)["defect_name"]
            kind = "logical_anomalies" if name in LOGICAL else "structural_anomalies"
            assert sample.defect == kind
            seen[name] += 1
    assert seen == dict.fromkeys((*LOGICAL, *STRUCTURAL), 5)


def test_the_table_lists_every_defect_with_its_own_value(kit):
    table = json.loads((kit / "defects_config.json").read_text())
    assert [entry["defect_name"] for entry in table] == [*LOGICAL, *STRUCTURAL]
    values = [entry["pixel_value"] for entry in table]
    assert len(set(values)) == len(values)
    assert all(0 < value <= 255 for value in values)


def test_a_mask_has_the_value_of_the_defect_that_it_shows(kit):
    label = np.zeros((256, 320), bool)
    label[150:204, 44:104] = True
    bottle = np.zeros((256, 320), bool)
    bottle[74:232, 38:110] = True
    tray = np.zeros((256, 320), bool)
    tray[36:226, 140:300] = True
    for path in (kit / "ground_truth").rglob("*.png"):
        mask = grey(path)
        name, shown = defect_of(kit, mask)["defect_name"], mask > 0
        if name.endswith("label"):
            assert np.array_equal(shown, label), path
        elif name == "wrong_fill":
            rows = shown.any(1)
            assert not (shown & ~bottle).any(), path
            assert shown[rows][:, 39:109].all(), path
            assert 16 <= rows.sum() <= 34, path
        elif name.endswith("part"):
            assert not (shown & ~tray).any(), path


def test_a_saturation_is_a_share_or_a_number_of_pixels_that_every_mask_has(kit):
    for path in (kit / "ground_truth").rglob("*.png"):
        mask = grey(path)
        entry, area = defect_of(kit, mask), (mask > 0).sum()
        threshold = entry["saturation_threshold"]
        if entry["relative_saturation"]:
            assert 0 < threshold <= 1
            assert area >= 10, path
        else:
            assert threshold > 1
            assert threshold <= area, path


# What is drawn


def pair(name: str, index: int, monkeypatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the good scene, the same with a defect, both in perfect light, and the mask."""

    def still(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        fine = demo.FINE
        return canvas.reshape(demo.HEIGHT, fine, demo.WIDTH, fine, 3).mean((1, 3)).round()

    monkeypatch.setattr(demo, "photograph", still)
    rng = np.random.default_rng((17, index))
    scene = demo.normal_scene(rng)
    image, mask = demo.DEFECTS[name].draw(scene, rng)
    return still(demo.render(scene, rng), rng), image, mask > 0


def grown(mask: np.ndarray) -> np.ndarray:
    """Widen a mask by the pixel at its border that is partly covered."""
    padded = np.pad(mask, 1)
    shifts = [padded[1 + y : 257 + y, 1 + x : 321 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return np.any(shifts, axis=0)


@pytest.mark.parametrize("name", [*LOGICAL, *STRUCTURAL])
def test_a_defect_changes_the_image_where_its_mask_says(name, monkeypatch):
    for index in range(8):
        good, image, mask = pair(name, index, monkeypatch)
        changed = (good != image).any(-1)
        assert mask.any()
        share = 0.2 if name == "wrong_label" else 0.5  # half of a label is blank, wrong or right
        assert (changed & mask).sum() >= share * mask.sum()
        if name != "swapped_part":  # its mask is the new part: what the old one left is not in it
            assert not (changed & ~grown(mask)).any()


def test_a_good_scene_has_two_nuts_two_bolts_and_its_drinks_label():
    drinks = Counter()
    for seed in range(40):
        scene = demo.normal_scene(np.random.default_rng(seed))
        assert Counter(part.kind for part in scene.parts) == {"nut": 2, "bolt": 2}
        assert scene.label == scene.drink
        assert abs(scene.fill_top - 108) <= 2
        drinks[scene.drink] += 1
    assert min(drinks.values()) > 5
    assert len(drinks) == 2


# Drawing aside


def test_a_failure_midway_leaves_nothing(few, tmp_path, monkeypatch):
    saved, save = [], demo.save

    def full_disk(path: Path, image: np.ndarray) -> None:
        if len(saved) == 7:
            raise OSError("no space left")
        saved.append(path)
        save(path, image)

    monkeypatch.setattr(demo, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        demo.draw_category(tmp_path / "kit")
    assert len(saved) == 7
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(demo, "save", save)
    demo.draw_category(tmp_path / "kit")
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


def test_the_category_is_not_in_its_place_before_it_is_whole(few, tmp_path, monkeypatch):
    save = demo.save

    def watch(path: Path, image: np.ndarray) -> None:
        assert not (tmp_path / "kit").exists()
        save(path, image)

    monkeypatch.setattr(demo, "save", watch)
    demo.draw_category(tmp_path / "kit")
    assert (tmp_path / "kit" / "defects_config.json").is_file()


def test_the_demo_is_drawn_at_first_use_and_once(few, tmp_path, monkeypatch):
    root = tmp_path / "not" / "yet" / "there"
    first = read_category("demo", root, "kit", seed=0)
    assert len(first.train) == 3
    monkeypatch.setattr(demo, "draw_category", None)
    assert read_category("demo", root, None, seed=1) == first


def test_the_demo_needs_no_path_option():
    assert find_root("demo", None) == Path("datasets/demo")
