"""Anomaly maps on disk: a test set's are written, and read again, be they ours or another's."""

from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from data.images import Size, image_size, in_background
from data.samples import Category, InputError, Sample
from scoring.scorer import Scorer
from scoring.stream import WRITERS, Scored, ScoreFiles, score_files, write_map
from utils.progress import progress

Scores = dict[Path, Scored]  # image -> what it was given, without the map


def map_path(folder: Path, sample: Sample) -> Path:
    """Return where a sample's anomaly map lies, in the layout of MVTec's evaluation scripts."""
    return folder / "test" / sample.place.with_suffix(".tiff")


def warmed_up(scorer: Scorer, size: Size) -> ScoreFiles:
    """Return what scores files by a detector, which sees them at `size`, from now on as fast."""
    scorer.warm_up(size)
    return partial(score_files, scorer, size)


def write_maps(
    score: ScoreFiles,
    category: Category,
    workers: int,
    folder: Path,
    unreadable: dict[Path, str],
    scores: Scores,
) -> None:
    """Write the map of every image to be scored, float32 TIFF at the image's size, into `folder`.

    Threads decode images ahead and write maps behind. What cannot be read is noted in `unreadable`,
    what the image was given in `scores`. Raises InputError when no image can be read.
    """
    paths = [sample.image for sample in category.scored]
    places = {sample.image: map_path(folder, sample) for sample in category.scored}

    def write(scored: Scored) -> Scored:
        write_map(places[scored.path], scored.anomaly_map.cpu().numpy())
        return scored._replace(anomaly_map=None)  # as large as the image

    scored = score(paths, workers, unreadable)
    written = in_background(write, scored, min(workers, WRITERS))
    for one in progress(f"scoring {category.name}", len(paths), "img", written):
        scores[one.path] = one
    if not scores:
        raise InputError(*unreadable.values())


def remove_stale_maps(folder: Path, scored: list[Sample]) -> None:
    """Remove the maps of all images but those `scored`, and the folders that they leave."""
    known = {map_path(folder, sample) for sample in scored}
    for path in sorted((folder / "test").rglob("*"), reverse=True):  # files before their folders
        if path.suffix in (".tif", ".tiff") and path not in known:
            path.unlink()
        elif path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def read_map(folder: Path, sample: Sample) -> np.ndarray:
    """Read a sample's map, float32 (H, W), as large as its image.

    Raises InputError naming a map that is missing, unreadable, of another size, or not finite.
    """
    path = map_path(folder, sample)
    path = path if path.exists() else path.with_suffix(".tif")
    if not path.is_file():
        raise InputError(f"there is no map {path.with_suffix('.tiff')}")
    size = image_size(sample.image)
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first  # all pages of a damaged file may have no end
            found = page.shape if is_single(file) else "several images"
            scores = page.asarray() if found == size else None  # no memory at its word
    except Exception as error:  # a damaged file fails in any way
        raise InputError(f"cannot read the map {path}: {error}") from error
    if scores is None:
        raise InputError(f"the map {path} is {found} but its image is {size}")
    if scores.dtype.kind not in "fiu":
        raise InputError(f"the map {path} holds {scores.dtype}, not numbers")
    scores = scores.astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        raise InputError(f"the map {path} holds values that are not finite numbers")
    return scores


def is_single(file: tifffile.TiffFile) -> bool:
    """Tell whether a TIFF has one page only."""
    try:
        return not file.pages[1]
    except IndexError:
        return True


def check_maps(category: Category, folder: Path) -> None:
    """Raise InputError naming a map without its image: then the maps are of another test set."""
    known = {map_path(folder, sample).with_suffix("") for sample in category.scored}
    for path in sorted((folder / "test").rglob("*.tif*")):
        if path.with_suffix("") not in known:
            raise InputError(f"{path} is the map of no test image of {category.name}: remove it")
