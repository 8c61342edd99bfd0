"""Videos and a camera to be tested with: each frame says by its pixels which one it is."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from tests.conftest import picture

BITS, BLOCK = 10, 8  # blocks of pixels in the first row of blocks, white for a 1


def frame(number: int, stain: bool = False) -> np.ndarray:
    """Return a picture of the tests' product, uint8 (80, 96, 3) RGB, that tells its number."""
    image = np.array(picture(np.random.default_rng(number), stain))
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image


def number_of(image: np.ndarray) -> int:
    middle = BLOCK // 2
    return sum((int(image[middle, bit * BLOCK + middle, 1]) > 127) << bit for bit in range(BITS))


def film(path: Path, images: list[np.ndarray], codec: str = "FFV1") -> Path:
    """Write a video, 10 frames a second, of RGB images."""
    size = images[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 10, size)
    assert writer.isOpened()
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()
    return path


class Playing(ThreadingHTTPServer):
    """A camera that sends JPEGs over HTTP, as network cameras do, and fails as it is told."""

    daemon_threads = True
    pause = 0.02  # seconds between two frames
    breaks_after = 10**6  # frames of a connection
    stalls = False  # instead of breaking off it says nothing more
    refuses_until = 0.0
    width = 96

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Sending)
        self.sent = self.connections = 0

    @property
    def url(self) -> str:
        return f"http://operator:swordfish@127.0.0.1:{self.server_port}/video.mjpg"

    def handle_error(self, *_) -> None:
        """Say nothing of a client that goes."""


class Sending(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        camera = self.server
        if time.monotonic() < camera.refuses_until:
            return
        camera.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for _ in range(camera.breaks_after):
            image = cv2.resize(frame(camera.sent)[..., ::-1], (camera.width, 80))
            jpeg = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            camera.sent += 1
            time.sleep(camera.pause)
        if camera.stalls:
            time.sleep(20)

    def log_message(self, *_) -> None:
        """Write nothing on stderr."""


@contextmanager
def playing_camera() -> Iterator[Playing]:
    """Give a camera that is there until the block ends."""
    with Playing() as camera:
        threading.Thread(target=camera.serve_forever, daemon=True).start()
        yield camera
        camera.shutdown()
