"""From maps on disk to a category's metrics; bad maps and masks are named."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import roc_auc_score

from data.catalog import read_category
from data.samples import Category, InputError
from evaluation.evaluation import measure
from evaluation.maps import check_maps, map_path
from tests.conftest import SIZE, fill, make_mvtec_ad, make_mvtec_loco, make_product

SHAPE = SIZE[::-1]  # height, width


@pytest.fixture
def loco(tmp_path) -> Category:
    make_mvtec_loco(tmp_path / "loco", "juice")
    return read_category("mvtec_loco", tmp_path / "loco", "juice", seed=0)


@pytest.fixture
def maps(tmp_path) -> Path:
    return tmp_path / "maps"


def write(category: Category, folder: Path, scores) -> None:
    """Write a map for every test image; `scores` makes one from a sample and its number."""
    for index, sample in enumerate(category.test):
        path = map_path(folder, sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, scores(sample, index).astype(np.float32))


def stained(sample, index) -> np.ndarray:
    """Return a map that is right wherever the miniature datasets have their stain."""
    scores = np.random.default_rng(index).uniform(0, 0.5, SHAPE)
    if sample.label:
        scores[30:50, 30:50] += 0.6
    return scores


def test_maps_lie_where_mvtecs_scripts_look_for_them(loco, maps):
    places = {map_path(maps, sample).relative_to(maps).as_posix() for sample in loco.test}
    assert "test/good/000.tiff" in places
    assert "test/logical_anomalies/001.tiff" in places


def test_a_perfect_map_has_perfect_metrics_under_locos_own_key_names(loco, maps):
    write(loco, maps, stained)
    result = measure(loco, maps, workers=2)
    both = {"logical_anomalies": 1.0, "structural_anomalies": 1.0, "mean": 1.0}
    assert result["classification"] == {"auc_roc": both}
    limits = ["0.01", "0.05", "0.1", "0.3", "1.0"]
    spro = result["localization"]["auc_spro"]
    assert {subset: list(areas) for subset, areas in spro.items()} == dict.fromkeys(both, limits)
    assert all(a == pytest.approx(1) for areas in spro.values() for a in areas.values())
    ours = result["glae"]
    names = ("auroc_pooled", "average_precision", "f1_max", "pixel_auroc")
    assert [ours[name] for name in names] == pytest.approx([1] * 4)
    json.dumps(result, allow_nan=False)


def test_logical_structural_mean_and_pooled_are_worked_out_by_hand(loco, maps):
    """Only logical anomalies are seen, structural ones score lower than everything."""
    level = {"good": 0.5, "logical_anomalies": 0.9, "structural_anomalies": 0.1}
    write(loco, maps, lambda sample, index: np.full(SHAPE, level[sample.defect]))
    result = measure(loco, maps, workers=1)
    expected = {"logical_anomalies": 1.0, "structural_anomalies": 0.0, "mean": 0.5}
    assert result["classification"]["auc_roc"] == expected
    assert result["glae"]["auroc_pooled"] == 0.5
    assert result["glae"]["auroc_by_defect"] == {k: v for k, v in expected.items() if k != "mean"}
    # The two logical images are plateaus of 7,280 negatives and 400 pixels of the stain: sPRO rises
    # on one straight line from 0 to 1 up to their share of the negatives; the good ones come later.
    slope = 2 * 7280 / (2 * 7280 + 2 * 7680)
    spro = result["localization"]["auc_spro"]["logical_anomalies"]
    assert spro["0.3"] == pytest.approx(0.3 / slope / 2)
    assert spro["1.0"] == pytest.approx(1 - slope / 2)


def test_a_subset_that_is_not_there_is_null(tmp_path, maps):
    make_mvtec_loco(tmp_path / "loco", "juice", logical=False)
    category = read_category("mvtec_loco", tmp_path / "loco", "juice", seed=0)
    write(category, maps, stained)
    result = measure(category, maps, workers=1)
    auroc = result["classification"]["auc_roc"]
    assert auroc == {"logical_anomalies": None, "structural_anomalies": 1.0, "mean": None}
    spro = result["localization"]["auc_spro"]
    assert set(spro["logical_anomalies"].values()) == set(spro["mean"].values()) == {None}


def test_mvtec_ad_has_au_pro_and_numbers_by_defect(tmp_path, maps):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    fill(tmp_path / "ad" / "bottle" / "test" / "crack", 2, stain=True)
    truth = tmp_path / "ad" / "bottle" / "ground_truth"
    (truth / "crack").mkdir()
    for index in range(2):
        stain = (truth / "stain" / f"{index:03}_mask.png").read_bytes()
        (truth / "crack" / f"{index:03}_mask.png").write_bytes(stain)
    category = read_category("mvtec_ad", tmp_path / "ad", "bottle", seed=0)

    def only_stains(sample, index):
        seen = sample.defect == "stain"
        return stained(sample, index) if seen else np.random.default_rng(index).uniform(size=SHAPE)

    write(category, maps, only_stains)
    result = measure(category, maps, workers=2)
    by_defect = result["glae"]["au_pro_by_defect"]
    assert by_defect["stain"] > 0.4 > by_defect["crack"]
    assert by_defect["crack"] == pytest.approx(0.15, abs=0.05)  # chance: limit / 2
    # five regions of one size: the pooled curve is the mean of theirs, at the pooled rates
    assert by_defect["crack"] < result["au_pro"] < by_defect["stain"] + 0.3
    labels, scores = [], []
    for sample in category.test:
        mask = np.zeros(SHAPE, bool)
        if sample.label:
            mask[30:50, 30:50] = True
        labels.append(mask.ravel())
        scores.append(tifffile.imread(map_path(maps, sample)).ravel())
    expected = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    assert result["glae"]["pixel_auroc"] == pytest.approx(expected, abs=1e-9)


def test_an_images_score_is_its_maps_maximum(tmp_path, maps):
    make_product(tmp_path / "bolt")
    category = read_category("folder", tmp_path / "bolt", None, seed=0)
    peaks = [0.3, 0.8, 0.5, 0.9]
    labels = [sample.label for sample in category.test]

    def one_peak(sample, index):
        scores = np.zeros(SHAPE)
        scores[index, 2 * index] = peaks[index]
        return scores

    write(category, maps, one_peak)
    result = measure(category, maps, workers=1)
    assert result["classification_au_roc"] == roc_auc_score(labels, peaks)


def test_a_product_without_masks_has_image_metrics_only(tmp_path, maps):
    fill(tmp_path / "bolt" / "train" / "good", 4)
    fill(tmp_path / "bolt" / "test" / "good", 2)
    fill(tmp_path / "bolt" / "test" / "stain", 2, stain=True)
    category = read_category("folder", tmp_path / "bolt", None, seed=0)
    write(category, maps, stained)
    result = measure(category, maps, workers=1)
    assert result["classification_au_roc"] == 1.0
    assert result["au_pro"] is None
    assert result["glae"]["pixel_auroc"] is None


# Bad maps and masks


def spoil(category: Category, maps: Path, how) -> Path:
    """Write good maps, then change one; return its path."""
    write(category, maps, stained)
    path = map_path(maps, category.test[-1])
    how(path)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def with_value(value: float):
    def change(path: Path) -> None:
        scores = tifffile.imread(path)
        scores[3, 4] = value
        tifffile.imwrite(path, scores)

    return change


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Path.unlink, "there is no map"),
        (cut, "cannot read"),
        (lambda path: path.write_text("not a TIFF"), "cannot read"),
        (lambda path: tifffile.imwrite(path, np.zeros((9, 7), np.float32)), "image is"),
        (lambda path: tifffile.imwrite(path, np.zeros((*SHAPE, 3), np.uint8)), "image is"),
        (with_value(np.nan), "not finite"),
        (with_value(np.inf), "not finite"),
        (with_value(-np.inf), "not finite"),
    ],
    ids=["missing", "cut", "text", "smaller", "colour", "nan", "inf", "-inf"],
)
def test_a_bad_map_is_named(loco, maps, how, said):
    path = spoil(loco, maps, how)
    with pytest.raises(InputError, match=said) as caught:
        measure(loco, maps, workers=2)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_map_of_no_image_is_named(loco, maps):
    write(loco, maps, stained)
    check_maps(loco, maps)
    tifffile.imwrite(maps / "test" / "good" / "077.tiff", np.zeros(SHAPE, np.float32))
    with pytest.raises(InputError, match=r"077\.tiff"):
        check_maps(loco, maps)


def test_maps_may_end_in_tif_and_hold_doubles(loco, maps):
    write(loco, maps, stained)
    expected = measure(loco, maps, workers=1)
    for sample in loco.test:
        path = map_path(maps, sample)
        tifffile.imwrite(path.with_suffix(".tif"), tifffile.imread(path).astype(np.float64))
        path.unlink()
    check_maps(loco, maps)
    assert measure(loco, maps, workers=1) == expected


def test_a_mask_of_another_size_is_named(loco, maps):
    write(loco, maps, stained)
    mask = loco.test[-1].masks[0]
    Image.new("L", (12, 10), 254).save(mask)
    with pytest.raises(InputError, match="mask") as caught:
        measure(loco, maps, workers=2)
    assert str(mask) in str(caught.value)


def test_a_mask_value_that_the_table_lacks_is_named(loco, maps):
    write(loco, maps, stained)
    mask = loco.test[-1].masks[0]
    Image.new("L", SIZE, 17).save(mask)
    with pytest.raises(InputError, match="17") as caught:
        measure(loco, maps, workers=2)
    assert str(mask) in str(caught.value)
