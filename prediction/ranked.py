"""Pictures of a test set, the most wrong first, as a file browser sorts them."""

import re
from pathlib import Path

import numpy as np

from data.images import decode, image_size, in_background
from data.samples import ANOMALOUS, GOOD, MOST_BYTES, Category, InputError, Sample
from evaluation.evaluation import regions_of
from evaluation.maps import read_map
from evaluation.results import OUTCOMES, ImageResult, read_results_file, worst_first
from models.detector import Detector
from prediction.pictures import write_picture
from prediction.verdicts import Prediction, strongest_region
from scoring.stream import WRITERS
from utils.commands import printable, say
from utils.files import remove_parts
from utils.progress import progress
from utils.runs import Run

SUFFIX = ".png"
VERDICTS = "|".join((*OUTCOMES, ANOMALOUS, GOOD)).replace(" ", "_")  # in the names of pictures
OURS = re.compile(rf"\d{{4,}}_({VERDICTS})_.*\{SUFFIX}")


def picture_name(rank: int, result: ImageResult) -> str:
    """Return what a picture is called; a rank has one picture, so the rest may be cut."""
    _, *within = Path(result.image).with_suffix("").parts  # below the defect's folder
    words = (f"{rank:04}", result.outcome.replace(" ", "_"), result.defect, *within)
    name = printable("_".join(words)).encode()[: MOST_BYTES - len(SUFFIX)]
    return name.decode(errors="ignore") + SUFFIX


def ground_truth(sample: Sample, category: Category) -> np.ndarray | None:
    """Return where metrics take an image for defective, bool (H, W); None without masks."""
    if not sample.masks:
        return None
    truth = np.zeros(image_size(sample.image), bool)
    for pixels, _ in regions_of(sample, category):
        truth.ravel()[pixels] = True
    return truth


def remove_pictures(folder: Path) -> None:
    """Remove what an earlier `draw_ranked` left in a folder, and nothing else."""
    for path in folder.glob(f"*{SUFFIX}"):
        if OURS.fullmatch(path.name):
            path.unlink()
    remove_parts(folder.glob(".*.part"))


def draw_ranked(
    run: Run, category: Category, detector: Detector, metrics: dict, workers: int
) -> list[str]:
    """Draw each scored test image of a run, from its maps and results; threads do.

    `metrics` are what the evaluation has returned. Returns a fault for each image that has changed
    since, or whose map or mask has, so that it cannot be drawn.
    """
    samples = {sample.place.as_posix(): sample for sample in category.scored}
    threshold, of_map = metrics["glae"]["threshold"], metrics["glae"]["map_threshold"]
    results = worst_first(read_results_file(run.results_file), threshold)
    unseen, bits = detector.view.unseen.cpu().numpy(), int(detector.bits)
    ignored = unseen if unseen.size else None

    def draw_one(numbered: tuple[int, ImageResult]) -> str | None:
        rank, result = numbered
        sample = samples[result.image]
        try:
            found = read_map(run.maps_folder, sample)
            said = (result.anomalous, result.score, result.p_value, threshold)
            where = (strongest_region(found, of_map), found, of_map)
            more = (result.experts, result.seconds, ignored)
            prediction = Prediction(sample.image, *said, *where, *more)
            image, truth = decode(sample.image, bits=bits), ground_truth(sample, category)
            path = run.pictures_folder / picture_name(rank, result)
            write_picture(path, image, prediction, truth)
        except InputError as error:
            return str(error)

    remove_pictures(run.pictures_folder)
    drawn = in_background(draw_one, enumerate(results, 1), min(workers, WRITERS))
    faults = [*filter(None, progress(f"drawing {category.name}", len(results), "img", drawn))]
    count = len(results) - len(faults)
    where = f"{count} pictures, the most wrong first, to {run.pictures_folder}"
    say(printable(f"{category.name}: wrote {where}"))
    return faults
