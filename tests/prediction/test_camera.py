"""predict.py --camera: the newest frame, of one that floods, is slow, breaks off, comes back."""

import json
import signal
import sys
import threading
import time
from datetime import datetime

import pytest

import predict
from data.samples import InputError
from prediction import frames
from prediction.frames import Camera, camera_name
from tests.prediction.conftest import MACHINE
from tests.prediction.filming import number_of, playing_camera
from utils.commands import run_command
from utils.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.fixture
def playing(monkeypatch):
    """A camera that plays; one that is lost is tried again soon."""
    monkeypatch.setattr(frames, "PAUSES", ())
    monkeypatch.setattr(frames, "LONGEST", 0.2)
    with playing_camera() as camera:
        yield camera


def test_of_a_camera_that_floods_the_newest_frame_is_taken_and_the_others_are_dropped(playing):
    camera = Camera(playing.url, 1)
    behind, found = [], []
    for frame in camera.frames(Interrupts()):
        found.append(number_of(frame.image))
        behind.append(playing.sent - found[-1])
        time.sleep(0.3)  # as a slow detector
        if len(found) == 8:
            break
    assert len(camera.newest) <= 1
    assert found == sorted(set(found))
    assert found[-1] - found[0] > 21  # most are dropped
    assert max(behind[1:]) < 15  # frames of 20 ms: the delay is no longer in the end
    scored, came = len(found), camera.came
    assert f"{scored} of {came} frames scored" in camera.summary(scored)
    assert f"{came - scored} dropped" in camera.summary(scored)


def test_every_nth_frame_that_comes_may_be_all_that_is_looked_at(playing):
    playing.pause = 0.1
    found = []
    for frame in Camera(playing.url, 3).frames(Interrupts()):
        found.append(number_of(frame.image))
        if len(found) == 4:
            break
    assert found == [0, 3, 6, 9]


def test_of_a_slow_camera_no_frame_is_lost(playing, capfd):
    playing.pause = 0.7
    found = []
    for frame in Camera(playing.url, 1).frames(Interrupts()):
        found.append(number_of(frame.image))
        if len(found) == 5:
            break
    assert found == list(range(found[0], found[0] + 5))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("stalls", [False, True])
def test_a_camera_that_breaks_off_or_says_nothing_more_is_opened_again(
    playing, capfd, monkeypatch, stalls
):
    monkeypatch.setattr(frames, "PATIENCE", 1)
    playing.breaks_after, playing.stalls = 12, stalls
    found, sizes = [], set()
    for frame in Camera(playing.url, 1).frames(Interrupts()):
        found.append(number_of(frame.image))
        sizes.add(frame.image.shape)
        playing.width = 128  # when it is back it has other frames
        if found[-1] < 12:
            playing.refuses_until = time.monotonic() + 1
        if found[-1] > 14:
            break
    assert playing.connections >= 2
    assert {(80, 96, 3), (80, 128, 3)} <= sizes
    lines = capfd.readouterr().err.splitlines()
    name = f"127.0.0.1-{playing.server_port}"
    assert lines[0] == f"{name} gives no frames any more; it is opened again until it does"
    assert lines[1].startswith(f"{name} is back after ")
    assert len(lines) == 2


def test_a_lost_camera_can_be_given_up_at_once(playing, monkeypatch):
    monkeypatch.setattr(frames, "LONGEST", 600)
    playing.breaks_after = 5
    interrupts = Interrupts()
    asked = threading.Timer(1.5, setattr, (interrupts, "since", 0.0))
    begun = time.monotonic()
    asked.start()
    assert list(Camera(playing.url, 1).frames(interrupts))
    assert time.monotonic() - begun < 5


def test_what_goes_wrong_in_the_thread_ends_the_command(playing, monkeypatch):
    def full(image) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(frames, "rgb", full)
    with pytest.raises(MemoryError, match="no room"):
        list(Camera(playing.url, 1).frames(Interrupts()))


def test_ctrl_c_ends_it_well_and_no_row_or_line_holds_its_password(
    alone, playing, tmp_path, monkeypatch, capfd, interruptible
):
    shown = []

    def show(prediction) -> None:
        shown.append(prediction)
        if len(shown) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(predict, "show", show)
    line = [
        "--camera",
        playing.url,
        "--jsonl",
        tmp_path / "a.jsonl",
        "--drift",
        "--fail_on_anomaly",
    ]
    line = ["predict.py", alone.folder, *line, "--pictures", tmp_path / "seen", *MACHINE]
    monkeypatch.setattr(sys, "argv", [str(word) for word in line])
    assert run_command(predict.main, predict.get_parser) == 3
    rows = [json.loads(row) for row in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    name = f"127.0.0.1-{playing.server_port}"
    for row in rows:
        camera, moment = row["image"].split("#")
        assert camera == name
        age = datetime.now().astimezone() - datetime.strptime(moment, "%Y%m%dT%H%M%S.%f%z")
        assert 0 <= age.total_seconds() < 60
        assert (tmp_path / "seen" / name / f"{moment}.png").is_file()
    out, err = capfd.readouterr()
    assert f"{name}: 3 of " in err
    assert "swordfish" not in out + err + (tmp_path / "a.jsonl").read_text()


@pytest.mark.parametrize("source", ["63", "http://operator:swordfish@127.0.0.1:9/video"])
def test_a_camera_that_cannot_be_opened_is_told_in_one_line_without_its_password(source):
    with pytest.raises(InputError, match=r"cannot be opened") as caught:
        Camera(source, 1)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("0", "camera0"),
        ("rtsp://operator:swordfish@10.0.0.5:554/swordfish?p=swordfish", "10.0.0.5-554"),
        ("http://line-3.example/video.mjpg", "line-3.example"),
        ("rtsp://[fe80::1]/1", "fe80__1"),
    ],
)
def test_a_camera_is_called_by_its_number_or_its_host(source, name):
    assert camera_name(source) == name
