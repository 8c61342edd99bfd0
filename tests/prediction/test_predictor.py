"""load_detector and predict, from Python: every kind of picture gives what its file gives."""

import re
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from data.images import in_background
from data.samples import InputError
from prediction.predictor import load_detector
from prediction.verdicts import strongest_region
from scoring.scorer import SCORE
from scoring.stream import Scored
from tests.conftest import REPOSITORY, deep, picture
from tests.prediction.conftest import rgb

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.fixture(scope="module")
def detector(alone):
    return load_detector(alone.folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def stained(product):
    return product / "test" / "stain" / "001.png"


def test_a_path_an_image_and_an_array_are_the_same_picture(detector, stained):
    with Image.open(stained) as image:
        kinds = [stained, str(stained), image, rgb(stained)]
        found = [detector.predict(kind) for kind in kinds]
        together = detector.predict(kinds)
    assert found[0].anomalous
    assert found[0].verdict == "anomalous"
    for one in (*found, *together):
        assert one.score == found[0].score
        assert one.region == found[0].region
        assert np.array_equal(one.anomaly_map, found[0].anomaly_map)
    assert [one.path for one in found] == [stained, stained, None, None]
    assert found[0].anomaly_map.shape == (80, 96)
    assert found[0].experts.keys() == {"position", "composition"}


def test_several_at_once_are_scored_as_each_alone(alone, product, detector):
    paths = sorted((product / "test").rglob("*.png"))
    several = load_detector(alone.folder, "cpu", "fp32", scoring_batch_size=3).predict(paths)
    alone = [detector.predict(path) for path in paths]
    assert [one.path for one in several] == paths
    for ours, theirs in zip(several, alone, strict=True):
        assert ours.score == pytest.approx(theirs.score, rel=1e-3, abs=1e-3)
        assert ours.p_value == theirs.p_value


def test_an_image_is_turned_as_its_exif_says_like_its_file(detector, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "turned.png"
    picture(np.random.default_rng(3), stain=True).save(path, exif=exif)
    with Image.open(path) as image:
        assert detector.predict(image).score == detector.predict(path).score


WRONG = [
    np.zeros((8, 8), np.uint8),
    np.zeros((8, 8, 3), np.float32),
    np.zeros((8, 8, 4), np.uint8),
    np.zeros((0, 8, 3), np.uint8),
    torch.zeros(3, 8, 8),
    Image.new("I", (8, 8)),
    Image.new("F", (8, 8)),
    None,
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_picture_is_refused_in_words(detector, wrong):
    with pytest.raises(ValueError, match=r"picture|array|path"):
        detector.predict(wrong)


def test_a_deep_image_is_read_by_its_path_and_a_missing_one_named(detector, tmp_path):
    assert detector.predict(deep(tmp_path / "deep.tif", 12)).score > -100
    with pytest.raises(InputError, match=r"none\.png"):
        detector.predict(tmp_path / "none.png")


def test_an_image_that_is_cut_short_is_an_input_error(detector, stained, tmp_path):
    (tmp_path / "cut.png").write_bytes(stained.read_bytes()[:2000])
    with Image.open(tmp_path / "cut.png") as image:
        for cut in (image, tmp_path / "cut.png"):
            with pytest.raises(InputError, match="cannot read the image"):
                detector.predict(cut)


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_a_rate_that_nothing_can_have_is_refused(alone, rate):
    with pytest.raises(InputError, match="false_alarm_rate must be above 0"):
        load_detector(alone.folder, device="cpu", false_alarm_rate=rate)


@pytest.mark.parametrize("wrong", [{"scoring_batch_size": -1}, {"precision": "fp4"}], ids=str)
def test_an_option_that_cannot_be_is_refused(alone, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        load_detector(alone.folder, device="cpu", **wrong)


def test_a_detector_tells_which_rate_it_keeps(alone, detector):
    assert detector.false_alarm_rate == pytest.approx(1 / 7)  # of six good images, not 0.05
    assert load_detector(alone.output, "cpu", false_alarm_rate=0.4).false_alarm_rate == 0.4


def test_the_strongest_region_is_scipys_of_the_highest_pixel():
    rng = np.random.default_rng(0)
    for threshold in (0.2, 0.35, 0.5, 2.0):
        found = ndimage.gaussian_filter(rng.normal(size=(60, 80)), 2).astype(np.float32)
        region = strongest_region(found, threshold * found.max())
        if threshold > 1:
            assert region is None
            continue
        labels, _ = ndimage.label(found > threshold * found.max(), np.ones((3, 3)))
        own = labels == labels.flat[found.argmax()]
        rows, columns = np.nonzero(own)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert region == (*box, own.sum())


def test_a_first_picture_waits_for_nothing_that_it_does_not_need(run_command, tmp_path):
    """Of what imports take, what is torch's own cannot be helped."""
    later = ["cv2", "tifffile", "filelock", "PIL.ImageDraw", "tabulate", "scipy", "sklearn"]
    code = f"import sys, predict; print([name for name in {later} if name in sys.modules])"
    done = run_command(["-c", code], REPOSITORY)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_page_on_python_shows_what_works(alone, stained, tmp_path, monkeypatch, capsys):
    page = (REPOSITORY / "docs" / "python.md").read_text()
    (tmp_path / "output" / "trainings" / "folder").mkdir(parents=True)
    (tmp_path / "output" / "trainings" / "folder" / "my_product").symlink_to(alone.folder)
    for name in ("new.png", "a.png", "b.jpg"):
        with Image.open(stained) as image:
            image.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert "anomalous" in capsys.readouterr().out
    assert names["result"].anomalous


def test_prompt_results_come_before_more_items_are_asked_for():
    asked, first_done = [], Event()

    def items():
        for number in range(6):
            asked.append(number)
            yield number
            first_done.wait()  # as a network that takes longer than what follows it

    def work(number: int) -> int:
        first_done.set()
        return number

    done = in_background(work, items(), 4, prompt=True)
    found = [next(done)]
    assert len(asked) < 6
    assert [*found, *done] == [0, 1, 2, 3, 4, 5]


def test_a_score_that_is_no_number_is_not_called_good(alone):
    predictor = load_detector(alone.folder, device="cpu")
    scored = Scored(None, {SCORE: float("nan")}, torch.zeros(8, 8), 0.0)
    assert predictor.judge(scored).anomalous
