"""--ignore: what lies in the region is not looked at, by training, calibration or prediction."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import calibrate
from data.samples import InputError
from prediction.predictor import load_detector
from tests.conftest import SIZE, picture
from tests.prediction.conftest import rgb, rows_of
from tests.running_main import ALL, ALONE, arguments, run_main, trained
from utils.presets import parse
from utils.tensors import read_about, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*at best", "ignore:.* are few")
INSIDE = (slice(30, 50), slice(30, 50))  # rows, columns of the pictures
REGION = (slice(26, 54), slice(26, 54))
OUTSIDE = (slice(58, 78), slice(70, 94))


def region_in(folder: Path, rows: slice, columns: slice, name: str = "region.png") -> Path:
    """Draw a region as large as the pictures."""
    pixels = np.zeros(SIZE[::-1], np.uint8)
    pixels[rows, columns] = 255
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def exchange(pixels: list[np.ndarray], seed: int) -> None:
    """Give each picture another one's pixels in the region: their mean stays what it is."""
    kept = [one[REGION].copy() for one in pixels]
    for index, one in enumerate(pixels):
        one[REGION] = kept[(index + seed) % len(kept)]


def replace(pixels: list[np.ndarray], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for one in pixels:
        one[REGION] = rng.integers(0, 256, one[REGION].shape)


def make(root: Path, seed: int) -> Path:
    """Draw a product whose images differ by `seed` in the region alone, where each has a spot."""
    for split, count in (("train", 6), ("validation", 3), ("test", 2)):
        drawn = [np.array(picture(np.random.default_rng(i), False)) for i in range(count)]
        for index, pixels in enumerate(drawn):
            pixels[30 + 3 * index : 36 + 3 * index, 32:48] = 20 * index
        (exchange if split == "train" else replace)(drawn, seed)
        (root / split / "good").mkdir(parents=True)
        for index, pixels in enumerate(drawn):
            Image.fromarray(pixels).save(root / split / "good" / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def region(tmp_path_factory) -> Path:
    return region_in(tmp_path_factory.mktemp("region"), *REGION)


@pytest.fixture(scope="module")
def ignoring(product, teacher, region, tmp_path_factory):
    """A run of the statistics alone that ignores the middle of the images."""
    output = tmp_path_factory.mktemp("ignoring")
    return trained(product, teacher, output, *ALONE, "--ignore", str(region))


@pytest.fixture
def detector(ignoring):
    return load_detector(ignoring.folder, device="cpu")


def pictures() -> dict[str, np.ndarray]:
    """Return a good picture, and the same with a stain in the region, and beside it."""
    good = np.array(picture(np.random.default_rng(70), stain=False))
    drawn = {"good": good, "inside": good.copy(), "outside": good.copy()}
    drawn["inside"][INSIDE] = drawn["outside"][OUTSIDE] = 10
    return drawn


def test_what_training_and_validation_images_show_in_the_region_changes_no_bit_of_the_detector(
    teacher, region, tmp_path
):
    found = []
    size = ("--image_size", *map(str, SIZE[::-1]))  # a resize would round, and change the mean
    for seed in (1, 2):
        product = make(tmp_path / str(seed), seed)
        line = (*ALL, *size, "--ignore", str(region))
        run = trained(product, teacher, tmp_path / f"out{seed}", *line)
        found.append(load_file(run.detector_file))
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if not torch.equal(found[0][name], found[1][name])] == []


def test_a_stain_in_the_region_is_not_found_and_one_beside_it_is(detector):
    found = {name: detector.predict(pixels) for name, pixels in pictures().items()}
    assert found["inside"].score == found["good"].score
    assert np.array_equal(found["inside"].anomaly_map, found["good"].anomaly_map)
    assert found["outside"].score > found["outside"].threshold > found["good"].score
    left, top, right, bottom, _ = found["outside"].region
    assert left < 94 and right > 70 and top < 78 and bottom > 58  # it meets the stain
    assert found["outside"].anomaly_map[26:54, 26:54].max() < found["outside"].map_threshold


def test_without_a_region_the_same_stain_is_found(alone):
    found = load_detector(alone.folder, device="cpu").predict(pictures()["inside"])
    assert found.anomalous
    assert found.ignored is None


def test_the_file_alone_knows_the_region(ignoring, detector, tmp_path):
    shutil.copy(ignoring.detector_file, tmp_path / "line 3.safetensors")
    colleague = load_detector(tmp_path / "line 3.safetensors", device="cpu")
    for pixels in pictures().values():
        ours, theirs = colleague.predict(pixels), detector.predict(pixels)
        assert ours.score == theirs.score
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
    assert read_about(ignoring.detector_file)["ignored"] is True


def test_the_same_region_again_changes_nothing_and_another_is_ignored_beside_it(
    ignoring, detector, region, tmp_path
):
    same = load_detector(ignoring.folder, device="cpu", ignore=region)
    corner = region_in(tmp_path, *(slice(side.start - 4, side.stop + 4) for side in OUTSIDE))
    both = load_detector(ignoring.folder, device="cpu", ignore=str(corner))
    assert both.false_alarm_rate == same.false_alarm_rate == detector.false_alarm_rate > 0
    for pixels in pictures().values():
        ours, theirs = same.predict(pixels), detector.predict(pixels)
        assert ours.score == theirs.score
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
    assert len({both.predict(pixels).score for pixels in pictures().values()}) == 1


@pytest.mark.parametrize("which", ["alone", "fused"])
def test_a_region_at_prediction_alone_hides_what_lies_in_it(which, request, run_predict, tmp_path):
    run, good = request.getfixturevalue(which), pictures()["good"]
    region, stained = region_in(tmp_path, slice(16), slice(None)), good.copy()
    stained[2:14, 30:60] = 10
    for name, pixels in (("good", good), ("stained", stained)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = [tmp_path / f"{name}.png" for name in ("good", "stained")]
    line = ("--csv", tmp_path / "seen.csv", "--pictures", tmp_path / "seen")
    scores = []
    for more in ((), ("--ignore", region)):
        assert run_predict(run.folder, *files, *line, *more) == 0
        scores.append([float(row["score"]) for row in rows_of(tmp_path / "seen.csv")])
    assert scores[0][1] > scores[0][0] + 1
    assert scores[1][1] == pytest.approx(scores[1][0], abs=0 if which == "alone" else 0.1)
    seen = rgb(tmp_path / "seen" / "good.png")[-400:, :480]  # five times as large
    assert seen[:150].mean() < 0.8 * seen[-100:].mean()  # hatched


def test_calibration_stores_a_region_without_and_with_more_images(alone, tmp_path):
    shutil.copytree(alone.output, tmp_path / "out")
    region, more_good = region_in(tmp_path, slice(16), slice(None)), tmp_path / "more"
    more_good.mkdir()
    for index in range(6):
        drawn = picture(np.random.default_rng(100 + index), stain=False)
        drawn.save(more_good / f"{index}.png")
    line, pixels = [str(tmp_path / "out"), "--ignore", str(region), "--device", "cpu"], pictures()
    for more in ([], [str(more_good)]):
        assert calibrate.main(parse(calibrate.get_parser(), [*line, *more])) == 0
        stored = load_detector(tmp_path / "out", device="cpu")
        added = load_detector(tmp_path / "out", device="cpu", ignore=region)
        for name, one in pixels.items():
            stained = one.copy()
            stained[2:14, 30:60] = 10
            assert stored.predict(stained).score == stored.predict(one).score
            assert added.predict(one).score == stored.predict(one).score, name
    before = load_detector(alone.output, device="cpu", ignore=region)
    assert before.predict(one).p_value != stored.predict(one).p_value  # of 6 and of 12 images
    with pytest.raises(InputError, match="give IMAGES to take in, --ignore, or "):
        calibrate.main(parse(calibrate.get_parser(), line[:1]))


def test_calibration_of_a_region_alone_keeps_the_rate_and_can_set_another(alone, tmp_path):
    shutil.copytree(alone.output, tmp_path / "out")
    line = [str(tmp_path / "out"), "--device", "cpu"]
    region = ["--ignore", str(region_in(tmp_path, slice(16), slice(None)))]
    for more, kept in (
        (["--false_alarm_rate", "0.4"], 0.4),
        (region, 0.4),
        ([*region, "--false_alarm_rate", "0.3"], 0.3),
    ):
        assert calibrate.main(parse(calibrate.get_parser(), [*line, *more])) == 0
        found = load_detector(tmp_path / "out", device="cpu")
        assert found.about["false_alarm_rate"] == found.false_alarm_rate == kept
        stored = load_file(tmp_path / "out/trainings/folder/bolt/detector.safetensors")
        assert stored["threshold"].item() == found.threshold
    files = sorted(tmp_path.rglob("detector*"))
    assert calibrate.main(parse(calibrate.get_parser(), [*line, *region])) == 0  # nothing new
    assert sorted(tmp_path.rglob("detector*")) == files


def test_a_resumed_run_refuses_another_region_but_not_the_same_in_another_file(
    product, teacher, ignoring, region, tmp_path, capsys
):
    line = arguments(product, teacher, ignoring.output, *ALONE, "--precision", "fp32", "--resume")
    other = region_in(tmp_path, *OUTSIDE)
    for more, now in (([], "None"), (["--ignore", str(other)], r".* % of the image")):
        with pytest.raises(InputError, match=rf"ignored was .* % of the image .*, not {now}"):
            run_main(*line, *more)
    with Image.open(region) as image:
        image.save(tmp_path / "same.bmp")
    assert run_main(*line, "--ignore", str(tmp_path / "same.bmp")) == 0
    assert run_main(*line, "--ignore", str(tmp_path / "same.bmp"), "--check") == 0
    assert "ignored: " in capsys.readouterr().out


def test_a_run_without_a_region_is_not_resumed_with_one(product, teacher, alone, region, tmp_path):
    line = arguments(product, teacher, alone.output, *ALONE, "--precision", "fp32", "--resume")
    with pytest.raises(InputError, match=r"ignored was None in this run"):
        run_main(*line, "--ignore", str(region))


def test_a_region_that_cannot_be_is_told_with_every_other_fault(
    product, teacher, alone, run_predict, tmp_path
):
    white = region_in(tmp_path, slice(None), slice(None))
    line = arguments(product, teacher, tmp_path / "out", "--batch_size", "0", "--ignore")
    with pytest.raises(InputError) as caught:
        run_main(*line, str(white))
    assert [fault.split()[0] for fault in caught.value.args] == ["--batch_size", str(white)]
    with pytest.raises(InputError) as caught:
        run_predict(alone.folder, product / "test", "--ignore", white, "--false_alarm_rate", "2")
    assert [f.split()[0] for f in caught.value.args] == ["--false_alarm_rate", str(white)]
    frame = region_in(tmp_path, slice(14, 80), slice(18, 96))  # no place has its centre beside it
    with pytest.raises(InputError, match="leaves nothing to look at"):
        run_main(*arguments(product, teacher, tmp_path / "out", "--ignore", str(frame)))
    with pytest.raises(InputError, match="leaves nothing to look at"):
        load_detector(alone.folder, device="cpu", ignore=frame)


def test_a_detector_of_an_earlier_version_can_overlook_a_region(alone, tmp_path):
    tensors, about = load_file(alone.detector_file), read_about(alone.detector_file)
    for name in ("ignored", "overlooked", "typical"):
        del tensors[f"view.{name}"], about[name]
    save_tensors(tensors, tmp_path / "former.safetensors", about)
    region, pixels = region_in(tmp_path, slice(16), slice(None)), pictures()["inside"]
    for ignore in (None, region):
        ours, former = (
            load_detector(path, device="cpu", ignore=ignore).predict(pixels).score
            for path in (alone.folder, tmp_path / "former.safetensors")
        )
        assert ours == former


@pytest.mark.parametrize("claim", ["all", "no mean", "none", "another size"])
def test_what_a_detector_says_of_its_region_is_not_believed(ignoring, tmp_path, claim):
    tensors, about = load_file(ignoring.detector_file), read_about(ignoring.detector_file)
    if claim == "all":
        tensors["view.ignored"][:] = True
    elif claim == "no mean":
        tensors["view.typical"], about["typical"] = tensors["view.typical"][:, :0, :0], False
    elif claim == "none":
        about["ignored"] = False
    else:
        tensors["view.ignored"] = tensors["view.ignored"].repeat(2, 1)
    save_tensors(tensors, tmp_path / "stranger.safetensors", about)
    with pytest.raises(InputError, match=r"stranger\.safetensors is damaged"):
        load_detector(tmp_path / "stranger.safetensors", device="cpu")
