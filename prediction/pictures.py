"""A picture of a prediction: the image with its heat, contours, a colour bar and the verdict."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.pictures import heat
from prediction.verdicts import Prediction
from utils.files import written_aside

LEAST, MOST = 480, 1600  # pixels of a picture's longer side, to be read and to be sent
STRONGEST = 0.6  # part of the heat's colour where it is full, so that the image shows through
FULL = 2.0  # times the map's threshold: there the colours end
BAR = 256  # levels
HATCH = 64  # grey levels that the stripes of a hatching differ by
CONTOUR = (0, 255, 255)  # cyan, which no colour of the heat is


def draw(image: Image.Image, prediction: Prediction) -> Image.Image:
    """Return an RGB image with what was found in it; `image` is the one that was predicted.

    The heat begins at 0 and is full at twice the map's threshold, at which the contours are.
    """
    scale = np.clip(1, LEAST / max(image.size), MOST / max(image.size))
    width, height = (max(1, round(scale * side)) for side in image.size)
    threshold, shown = prediction.map_threshold, (width, height)
    anomaly_map = cv2.resize(prediction.anomaly_map, shown, interpolation=cv2.INTER_LINEAR)
    drawn = blended(np.asarray(image.resize(shown)), anomaly_map, threshold)
    above = (anomaly_map > threshold).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(max(shown) / 400))
    cv2.drawContours(drawn, contours, -1, CONTOUR, line)
    if prediction.ignored is not None:
        drawn = hatched(drawn, prediction.ignored, 4 * line)
    return framed(drawn, words(prediction), threshold)


def blended(image: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Lay a map's heat over an image, uint8 (H, W, 3): more of it where it is higher."""
    full = max(FULL * threshold, np.finfo(np.float32).tiny)
    part = STRONGEST * np.clip(anomaly_map / full, 0, 1)[..., None]
    mixed = image * (1 - part) + heat(anomaly_map, threshold) * part
    return np.ascontiguousarray(mixed.round().astype(np.uint8))


def hatched(drawn: np.ndarray, ignored: np.ndarray, stripe: int) -> np.ndarray:
    """Hatch what nobody looked at in a picture (H, W, 3), with stripes of so many pixels.

    `ignored` is bool, of any size.
    """
    height, width = drawn.shape[:2]
    pixels = cv2.resize(ignored.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    stripes = np.add(*np.ogrid[:height, :width]) // stripe % 2
    pale = drawn // 2 + (HATCH * stripes)[..., None].astype(np.uint8)
    return np.where(pixels[..., None] > 0, pale, drawn)


def words(prediction: Prediction) -> str:
    """Return the verdict in words."""
    than = ">" if prediction.anomalous else "<="  # Pillow's own font lacks the one sign
    text = f"{prediction.verdict}: score {prediction.score:.3g} {than} {prediction.threshold:.3g}"
    return text if prediction.p_value is None else f"{text}, p = {prediction.p_value:.3f}"


def framed(drawn: np.ndarray, text: str, threshold: float) -> Image.Image:
    """Put the verdict above a picture (H, W, 3), and the colour bar of the map beside it."""
    height, width = drawn.shape[:2]
    size = max(14, max(width, height) // 40)
    font = ImageFont.load_default(size)
    bar = heat(np.linspace(FULL * threshold, 0, BAR, dtype=np.float32)[:, None], threshold)
    labels = (f"{FULL * threshold:.2g}", f"{threshold:.2g}", "0")
    beside = round(max(font.getlength(label) for label in labels)) + 3 * size
    framed = Image.new("RGB", (max(width, round(font.getlength(text))) + beside, height + 2 * size))
    framed.paste(Image.fromarray(drawn), (0, 2 * size))
    pen = ImageDraw.Draw(framed)
    pen.text((size // 2, size // 2), text, fill="white", font=font)
    left = framed.width - beside + size // 2
    framed.paste(Image.fromarray(bar).resize((size, height)), (left, 2 * size))
    tops = (2 * size, 2 * size + height // 2 - size // 2, size + height - size // 4)
    for label, top in zip(labels, tops, strict=True):
        pen.text((left + size + size // 2, top), label, fill="white", font=font)
    return framed


def write_picture(path: Path, image: Image.Image, prediction: Prediction) -> None:
    """Write `draw`'s picture as PNG."""
    blue_first = np.asarray(draw(image, prediction))[..., ::-1]
    _, content = cv2.imencode(".png", blue_first)  # ten times as fast as Pillow, and as small
    with written_aside(path, durable=False) as aside:
        aside.write_bytes(content)
