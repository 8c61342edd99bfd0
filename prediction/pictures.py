"""A picture of a prediction: the image, its heat, contours, ground truth, a legend, the verdict."""

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
# Cyan and a light magenta, which no colour of the heat is, nor are they one to the colour-blind
CONTOUR, TRUTH = (0, 255, 255), (255, 112, 255)
RIM = (0, 0, 0)  # of all lines: it or the line has a contrast of 3 to any colour
DASH = 6  # times a line's width

Legend = dict[str, tuple[tuple[int, int, int], int]]  # a line's meaning -> colour, dashes


def draw(
    image: Image.Image, prediction: Prediction, truth: np.ndarray | None = None
) -> Image.Image:
    """Return an RGB image with what was found in it; `image` is the one that was predicted.

    The heat begins at 0 and is full at twice the map's threshold, at which the contours are. The
    ground `truth`, bool (H, W) of the image, is outlined in dashes.
    """
    scale = np.clip(1, LEAST / max(image.size), MOST / max(image.size))
    width, height = (max(1, round(scale * side)) for side in image.size)
    threshold, shown = prediction.map_threshold, (width, height)
    anomaly_map = cv2.resize(prediction.anomaly_map, shown, interpolation=cv2.INTER_LINEAR)
    drawn = blended(np.asarray(image.resize(shown)), anomaly_map, threshold)
    line = max(1, round(max(shown) / 400))
    outline(drawn, anomaly_map > threshold, CONTOUR, line)
    if prediction.ignored is not None:
        drawn = hatched(drawn, prediction.ignored, 4 * line)
    legend = {"above the map's threshold": (CONTOUR, 1)}
    if truth is not None:
        covered = cv2.resize(truth.astype(np.float32), shown, interpolation=cv2.INTER_AREA)
        outline(drawn, covered > 0, TRUTH, line, DASH * line)  # be it a part of a pixel
        legend["ground truth"] = TRUTH, 3
    return framed(drawn, words(prediction), legend, threshold)


def outline(
    drawn: np.ndarray, inside: np.ndarray, colour: tuple, line: int, dash: int | None = None
) -> None:
    """Draw around what is `inside`, bool (H, W), into a picture (H, W, 3), with a dark rim.

    The line has a width of so many pixels; of a dashed one, dashes and gaps have that length.
    """
    lines, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if dash:
        starts = ((around, start) for around in lines for start in range(0, len(around), 2 * dash))
        dashes = [around[start : start + dash] for around, start in starts]
        lines = [np.concatenate((of, of[-1:])) for of in dashes]  # one point alone is not drawn
    for shade, width in ((RIM, 2 * line + 1), (colour, line)):
        cv2.polylines(drawn, lines, dash is None, shade, width)


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


def framed(drawn: np.ndarray, text: str, legend: Legend, threshold: float) -> Image.Image:
    """Put the verdict and a legend above a picture (H, W, 3), the map's colour bar beside it."""
    height, width = drawn.shape[:2]
    size = max(14, max(width, height) // 40)
    font = ImageFont.load_default(size)
    top, entries = 4 * size, explained(legend, font)
    bar = heat(np.linspace(FULL * threshold, 0, BAR, dtype=np.float32)[:, None], threshold)
    labels = (f"{FULL * threshold:.2g}", f"{threshold:.2g}", "0")
    beside = round(max(font.getlength(label) for label in labels)) + 3 * size
    framed = Image.new(
        "RGB", (max(width, round(font.getlength(text)), entries.width) + beside, height + top)
    )
    framed.paste(Image.fromarray(drawn), (0, top))
    pen = ImageDraw.Draw(framed)
    pen.text((size // 2, size // 2), text, fill="white", font=font)
    framed.paste(entries, (size // 2, 2 * size))
    left = framed.width - beside + size // 2
    framed.paste(Image.fromarray(bar).resize((size, height)), (left, top))
    heights = (top, top + height // 2 - size // 2, top + height - 5 * size // 4)
    for label, height in zip(labels, heights, strict=True):
        pen.text((left + size + size // 2, height), label, fill="white", font=font)
    return framed


def explained(legend: Legend, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return a legend as a picture, one line high."""
    size = round(font.size)
    lengths = [round(font.getlength(text)) for text in legend]
    drawn = Image.new("RGB", (sum(lengths) + 5 * size * len(legend), 2 * size))
    pen, left = ImageDraw.Draw(drawn), 0
    for length, (text, (colour, dashes)) in zip(lengths, legend.items(), strict=True):
        dash = 2 * size // (2 * dashes - 1)
        for start in range(left, left + 2 * size, 2 * dash):
            pen.line((start, size, start + dash, size), fill=colour, width=size // 6)
        pen.text((left + 3 * size, size // 2), text, fill="white", font=font)
        left += length + 5 * size
    return drawn


def write_picture(
    path: Path, image: Image.Image, prediction: Prediction, truth: np.ndarray | None = None
) -> None:
    """Write `draw`'s picture as PNG."""
    blue_first = np.asarray(draw(image, prediction, truth))[..., ::-1]
    _, content = cv2.imencode(".png", blue_first)  # ten times as fast as Pillow, and as small
    with written_aside(path, durable=False) as aside:
        aside.write_bytes(content)
