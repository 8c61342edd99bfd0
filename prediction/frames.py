"""Frames of a video file, one after the other, or of a camera, always the newest."""

import os
import re
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from itertools import chain, count, repeat
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import cv2
import numpy as np

from data.image_files import MOST_PIXELS, TOO_MANY
from data.images import in_background
from data.samples import InputError, require_file
from prediction.output import Frame
from utils.commands import say
from utils.interrupts import Interrupts

PATIENCE = 10  # seconds that a stream may take to open, or to give its next frame
PAUSES = (1, 2, 4, 8, 16)  # seconds before a lost camera is opened again, then LONGEST each time
LONGEST = 30
POLL = 0.2  # seconds between two looks at whether a camera is still wanted
QUIET = "-8"  # FFmpeg's level of logging at which it says nothing


def opened(source: str | int) -> cv2.VideoCapture:
    """Open a file, a URL or a camera's number; OpenCV's own words, with passwords, are not said."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = QUIET
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    settings = [value for limit in limits for value in (limit, 1000 * PATIENCE)]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, settings)


def rgb(image: np.ndarray) -> np.ndarray:
    """Return what OpenCV has read, BGR, as RGB. Raises InputError for too many pixels."""
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise InputError(f"a frame has {TOO_MANY} pixels: give smaller ones")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class Video:
    """Every `every`th frame of a video file, turned as that says, called file#number, from 0.

    Raises InputError for what is no video.
    """

    live = False

    def __init__(self, path: Path, every: int):
        self.path, self.every, self.came = path, every, 0
        try:
            require_file(path)
        except OSError as error:
            raise InputError(f"--video {path}: {error}") from error
        self.capture = opened(os.path.abspath(path))  # a relative a:b would be a protocol
        if not self.capture.isOpened():
            raise InputError(f"--video {path} is not there, no video, or cut short at its end")

    def frames(self, interrupts: Interrupts) -> Iterator[Frame]:
        """Yield the frames, decoded ahead in a thread, to the end, or until interrupted."""
        self.begun = time.monotonic()
        with closing(in_background(self._decode, count(0, self.every), 1)) as decoded:
            for frame in decoded:
                if frame is None or interrupts.requested:
                    break
                yield frame
        promised = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if self.came < promised and not interrupts.requested:
            warnings.warn(
                f"{self.path} ended after {self.came} frames; it says that it has {promised}",
                stacklevel=2,
            )

    def _decode(self, number: int) -> Frame | None:
        """Return the frame of a number, which grows from call to call; None behind the last."""
        while self.came < number and self.capture.grab():
            self.came += 1
        found, image = self.capture.read()
        if not found:
            return None
        self.came += 1
        place = Path(self.path.stem, f"{number:06}")
        return Frame(f"{self.path}#{number:06}", place, rgb(image))

    def summary(self, scored: int) -> str:
        """Return how many frames were scored, and how fast, beside the video's own rate."""
        seconds, own = time.monotonic() - self.begun, self.capture.get(cv2.CAP_PROP_FPS)
        return (
            f"{self.path}: {scored} of {self.came} frames scored, {scored / seconds:.1f} a second; "
            f"it has {own:.3g} a second"
        )


class Camera:
    """The newest frame of a camera, a number or a URL, or of every `every`th, at any moment.

    Called name#time, where the time is the computer's, of its coming. A camera that is lost is
    opened again. Raises InputError for what cannot be opened at first.
    """

    live = True  # its frames are scored one by one, and told at once

    def __init__(self, source: str, every: int):
        self.name, self.every, self.came = camera_name(source), every, 0
        self.source = int(source) if source.isdecimal() else source
        self.newest: deque[Frame] = deque(maxlen=1)
        self.arrived, self.ended = Event(), Event()
        self.capture = opened(self.source)
        if not self.capture.isOpened():
            raise InputError(
                f"--camera: {self.name} cannot be opened: is it there, reachable, free, and are "
                "its address and password right?"
            )

    def frames(self, interrupts: Interrupts) -> Iterator[Frame]:
        """Yield the newest frame, again and again, until interrupted; a thread takes them all."""
        self.begun = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            grabbing = pool.submit(self._grab)
            try:
                while not interrupts.requested and not grabbing.done():
                    if self.arrived.wait(POLL):
                        self.arrived.clear()
                    if self.newest:
                        yield self.newest.pop()
            finally:
                self.ended.set()
            grabbing.result()  # raises what went wrong in the thread

    def _grab(self) -> None:
        """Take each frame as it comes, so that none is ever waiting in a buffer."""
        while not self.ended.is_set():
            if not self._take():
                self._reopen()
        self.capture.release()

    def _take(self) -> bool:
        """Wait for a frame, and keep it if it is its turn; return whether one came."""
        if self.came % self.every:
            found = self.capture.grab()
        else:
            found, image = self.capture.read()
            if found:
                self.newest.append(self._named(image))
                self.arrived.set()
        self.came += found
        return found

    def _named(self, image: np.ndarray) -> Frame:
        now = datetime.now().astimezone()
        moment = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}{now:%z}"
        return Frame(f"{self.name}#{moment}", Path(self.name, moment), rgb(image))

    def _reopen(self) -> None:
        """Open a lost camera again, as often as it takes; say so once, and once that it is back."""
        say(f"{self.name} gives no frames any more; it is opened again until it does")
        lost = time.monotonic()
        for pause in chain(PAUSES, repeat(LONGEST)):
            self.capture.release()
            if self.ended.wait(pause):
                return
            self.capture = opened(self.source)
            if self.capture.isOpened() and self._take():
                say(f"{self.name} is back after {time.monotonic() - lost:.0f} s")
                return

    def summary(self, scored: int) -> str:
        """Return how many frames were scored, and how fast, beside the camera's own rate."""
        seconds = time.monotonic() - self.begun
        return (
            f"{self.name}: {scored} of {self.came} frames scored, {scored / seconds:.1f} of "
            f"{self.came / seconds:.1f} a second; {self.came - scored} dropped"
        )


def camera_name(source: str) -> str:
    """Return what a camera is called in rows, lines and folders: nothing secret is in it.

    Of a URL it is host and port: paths, too, hold passwords. Raises InputError for what is neither
    a number nor a URL.
    """
    if source.isdecimal():
        return f"camera{source}"
    try:
        url = urlsplit(source)
        place = [str(part) for part in (url.hostname, url.port) if part]
    except ValueError:  # such as a port that is no number
        place = []
    if not place or not place[0].strip("."):  # .. would be the folder above
        raise InputError("--camera takes a number, such as 0, or a URL, such as rtsp://10.0.0.5/1")
    return re.sub(r"[^\w.-]", "_", "-".join(place))
