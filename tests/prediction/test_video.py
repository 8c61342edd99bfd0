"""predict.py --video: each frame by its number, with the scores that its picture has."""

import os
import signal
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import numpy as np
import pytest
import tifffile

import predict
from data.samples import InputError
from prediction import pictures as drawing
from prediction.frames import Video
from prediction.predictor import load_detector
from tests.conftest import REPOSITORY
from tests.prediction.conftest import MACHINE, rgb, rows_of
from tests.prediction.filming import film, frame, number_of
from utils import commands
from utils.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A video of 23 products; two have a stain."""
    images = [frame(n, stain=n in (8, 15)) for n in range(23)]
    return film(tmp_path_factory.mktemp("video") / "line.avi", images)


@pytest.mark.parametrize("every", [1, 5, 22, 100])
@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "FFV1")]
)
def test_every_nth_frame_comes_in_order_under_the_number_that_it_shows(
    tmp_path, suffix, codec, every
):
    path = film(tmp_path / f"a{suffix}", [frame(n) for n in range(23)], codec)
    video = Video(path, every)
    found = list(video.frames(Interrupts()))
    assert [number_of(one.image) for one in found] == list(range(0, 23, every))
    assert [one.name for one in found] == [f"{path}#{n:06}" for n in range(0, 23, every)]
    assert video.came == 23
    assert f"{len(found)} of 23 frames scored" in video.summary(len(found))
    assert "10 a second" in video.summary(1)


def test_rows_maps_and_pictures_are_those_of_the_decoded_frames(
    alone, run_predict, line, tmp_path, capsys
):
    capture, decoded = cv2.VideoCapture(str(line)), []
    while (found := capture.read())[0]:
        decoded.append(np.ascontiguousarray(found[1][..., ::-1]))
    folders = ("--maps", tmp_path / "maps", "--pictures", tmp_path / "seen")
    options = ("--video", line, "--every", 4, "--csv", tmp_path / "a.csv", *folders)
    assert run_predict(alone.folder, *options) == 0
    rows = rows_of(tmp_path / "a.csv")
    expected = load_detector(alone.folder, "cpu", "fp32").predict(decoded[::4])
    assert [row["image"] for row in rows] == [f"{line}#{n:06}" for n in range(0, 23, 4)]
    assert [float(row["score"]) for row in rows] == [one.score for one in expected]
    for row, one in zip(rows, expected, strict=True):
        place = f"line/{row['image'][-6:]}"
        assert np.array_equal(tifffile.imread(tmp_path / "maps" / f"{place}.tiff"), one.anomaly_map)
        assert rgb(tmp_path / "seen" / f"{place}.png").ndim == 3
    assert [row["verdict"] for row in rows] == [one.verdict for one in expected]
    assert "6 of 23 frames scored" in capsys.readouterr().err
    assert run_predict(alone.folder, *options[:4], "--fail_on_anomaly") == 3


def test_a_frame_is_red_where_it_was_red(tmp_path):
    red = np.full((80, 96, 3), (200, 30, 60), np.uint8)
    (found,) = Video(film(tmp_path / "red.avi", [red], "MJPG"), 1).frames(Interrupts())
    assert np.abs(found.image.mean((0, 1)) - (200, 30, 60)).max() < 4


def test_a_video_of_a_turned_telephone_is_upright(tmp_path):
    path = film(tmp_path / "a.mp4", [frame(n) for n in range(4)], "mp4v")
    content = path.read_bytes()
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    place = content.index(upright, content.index(b"tkhd"))  # of the track's header
    path.write_bytes(content[:place] + turned + content[place + len(turned) :])
    found = [one.image for one in Video(path, 1).frames(Interrupts())]
    assert found[0].shape == (96, 80, 3)
    assert [number_of(np.rot90(image)) for image in found] == [0, 1, 2, 3]


def test_of_a_video_that_is_cut_short_what_is_there_is_scored(alone, run_predict, line, tmp_path):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(line.read_bytes()[: line.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"cut\.avi ended after \d+ frames; .* has 23"):
        assert run_predict(alone.folder, "--video", cut, "--csv", tmp_path / "a.csv") == 0
    rows = rows_of(tmp_path / "a.csv")
    assert 5 < len(rows) < 20
    assert rows[-1]["image"] == f"{cut}#{len(rows) - 1:06}"


def test_only_a_few_frames_are_decoded_ahead(line):
    video = Video(line, 1)
    frames = video.frames(Interrupts())
    next(frames)
    frames.close()
    assert video.came <= 5


def test_interrupted_it_ends_between_two_frames_and_keeps_their_rows(
    alone, line, tmp_path, monkeypatch, capfd, interruptible
):
    real, drawn = drawing.write_picture, []

    def interrupting(*arguments) -> None:
        real(*arguments)
        drawn.append(arguments[0])
        if len(drawn) == 2:  # once: a second one, a second later, ends it at once
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(drawing, "write_picture", interrupting)
    options = ["--video", line, "--csv", tmp_path / "a.csv", "--pictures", tmp_path / "seen"]
    argv = ["predict.py", *map(str, [alone.folder, *options]), *MACHINE]
    monkeypatch.setattr(sys, "argv", argv)
    assert commands.run_command(predict.main, predict.get_parser) == 130
    rows = rows_of(tmp_path / "a.csv")
    assert 0 < len(rows) < 23
    assert f"after {len(rows)}; what was written is whole" in capfd.readouterr().err


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.avi").touch()
    os.mkfifo(tmp_path / "pipe.avi")
    for name in ("text.mp4", "empty.avi", "pipe.avi", "", "none.mp4"):
        with pytest.raises(InputError, match=r"^--video ") as caught:
            Video(tmp_path / name, 1)
        assert len(caught.value.args) == 1


def test_opencv_and_ffmpeg_say_nothing_themselves(tmp_path, run_command):
    """In a process of its own: they are told once, by the first that opens anything."""
    (tmp_path / "text.mp4").write_text("no video")
    opening = f"""
from pathlib import Path
from prediction.frames import opened
print(opened("{tmp_path}/text.mp4").isOpened(), opened(63).isOpened())
print(opened("http://operator:swordfish@127.0.0.1:9/").isOpened())
"""
    done = run_command(["-c", opening], REPOSITORY)
    assert (done.stdout, done.stderr) == ("False False\nFalse\n", "")


def test_a_playlist_in_a_videos_place_calls_no_server(tmp_path):
    called = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            called.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Listening) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        segment = f"http://127.0.0.1:{server.server_port}/a.ts"
        hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{segment}\n#EXT-X-ENDLIST\n"
        lists = {"a.m3u8": hls, "b.mp4": hls, "c.avi": f"ffconcat version 1.0\nfile {segment}\n"}
        for name, text in lists.items():
            (tmp_path / name).write_text(text)
            with pytest.raises(InputError, match="no video"):
                Video(tmp_path / name, 1)
        server.shutdown()
    assert called == []


def test_one_thing_is_scored_and_every_fault_is_told_at_once(alone, run_predict, line, product):
    options = ("--video", line)
    for wrong, said in (
        ((), "name one thing to score, not none: IMAGES, --watch, --video or --camera"),
        ((product, *options), "not IMAGES and --video"),
        (("--camera", 0, *options), "not --video and --camera"),
        ((product, "--every", 2), "--every is for --video and --camera"),
        ((*options, "--every", 0), "--every must be at least 1"),
        ((*options, "--drift", 0), "--drift must be above 0"),
        ((*options, "--csv", line), "would be replaced"),
        (("--camera", "line.avi"), "takes a number, such as 0, or a URL"),
        (("--camera", "http://swordfish:x/"), "takes a number, such as 0, or a URL"),
    ):
        with pytest.raises(InputError) as caught:
            run_predict(alone.folder, *wrong)
        (fault,) = caught.value.args
        assert said in fault
        assert "swordfish" not in fault
    with pytest.raises(InputError) as caught:
        run_predict(alone.folder, "--every", 0, "--drift", 1)
    assert len(caught.value.args) == 3
