"""The detector's file: all that scoring needs, written whole, and read without trust."""

import operator
import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from data.depth import DEPTHS
from data.fingerprints import HASH_LENGTH
from data.images import PREPROCESSING
from data.samples import InputError
from models.building import empty_detector
from models.detector import LATER, Detector
from models.experts import EXPERTS, NETWORKS, chosen
from models.gfencoder import Size
from models.pdn import covers
from models.recipe import PUBLISHED
from utils.devices import DTYPES
from utils.files import DAMAGED, FILE, written_aside
from utils.tensors import read_about, read_tensors, save_tensors
from utils.version import project_version

UNFINISHED = "checkpoint.safetensors"  # of a training, which may not have come to its detector
SHOWN = 5  # detectors that are named where one of several is meant
MOST_GOOD = 10**7  # held-out images, of which scores are kept


class Trained(NamedTuple):
    """A detector from its file, and what that says of it: see `save_detector`."""

    detector: Detector
    size: Size  # height, width of what it sees, in pixels
    precision: str  # of training and calibration
    about: dict


def save_detector(detector: Detector, path: Path, about: dict) -> None:
    """Write a trained and calibrated detector; `about` has what it must be built by.

    These are model, model_size, image_size, precision; dataset and subdataset only tell. Of images
    that calibrate.py has taken in, it has the hashes as taken_in.
    """
    own = {"experts": list(detector.experts), "good_images": detector.good_scores.shape[1]}
    own |= {"false_alarm_rate": detector.recipe.false_alarm_rate}
    own |= {name: bool(pixels.numel()) for name, pixels in detector.view.named_buffers()}
    own |= {"preprocessing": PREPROCESSING, "version": project_version()}
    save_tensors(detector.state_dict(), path, about | own)


def read_detector(path: Path, device: torch.device) -> Trained:
    """Read a detector in evaluation mode.

    The thresholds of single maps are nan, and there are no good images' scores and no mean image,
    when it is of a version that had none. Raises InputError when the file is missing, damaged, or
    not one of ours.
    """
    try:
        about = read_about(path)
        height, width = map(operator.index, about["image_size"])
        precision = about.get("precision", "fp32")
        DTYPES[precision]  # or a KeyError
        if about.get("preprocessing", PREPROCESSING) != PREPROCESSING:
            raise ValueError("it sees images in another way than this version")
        if not 0 < about.get("false_alarm_rate", 0.5) < 1:
            raise ValueError("its false-alarm rate is not between 0 and 1")
        detector = built_as(about, (height, width))
        check_taken_in(about)
        state = detector.state_dict()
        later = LATER | {"good_scores": torch.empty(len(detector.rated), 0)}
        later = {name: later[name] for name in later if name in state}
        detector.load_state_dict(read_tensors(path, state, later), assign=True)
        check_state(detector)
        rate = about.get("false_alarm_rate", PUBLISHED.false_alarm_rate)
        detector.recipe = replace(detector.recipe, false_alarm_rate=rate)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist: train it, or finish its training with main.py --resume"
        ) from error
    except DAMAGED as error:
        raise InputError(
            f"{path} is damaged, or no detector ({error}): name another, or train this category "
            "again with --overwrite"
        ) from error
    return Trained(detector.to(device).eval(), (height, width), precision, about)


def keep_former(path: Path) -> Path:
    """Give a detector's file a second name beside it, which is returned: detector_1, _2, ...

    So it is still there, byte for byte, when its own name is given to another.
    """
    for number in count(1):
        kept = path.with_name(f"{path.stem}_{number}{path.suffix}")
        if os.path.lexists(kept):
            continue
        try:
            os.link(path, kept)
        except FileExistsError:  # another process was first
            continue
        except OSError:  # a file system without links
            with written_aside(kept) as aside:
                shutil.copyfile(path, aside)
        return kept


def find_detector(path: Path) -> Path:
    """Return the file of a detector: `path`, or the one in a run's folder or an output folder.

    Raises InputError for a folder that holds none, an unfinished one or several.
    """
    if not path.is_dir():
        return path
    if (path / FILE).exists():
        return path / FILE
    found = sorted(path.glob(f"trainings/*/[!.]*/{FILE}"))
    if not found:
        begun = sorted([*path.glob(UNFINISHED), *path.glob(f"trainings/*/[!.]*/{UNFINISHED}")])
        if begun:
            raise InputError(
                f"the training in {begun[0].parent} is not finished: go on with main.py --resume"
            )
        raise InputError(f"{path} holds no {FILE}: train one with main.py, or name another folder")
    if len(found) > 1:
        names = ", ".join(str(file.parent) for file in found[:SHOWN])
        raise InputError(
            f"{path} holds {len(found)} detectors, name the one that is meant: {names}"
        )
    return found[0]


def built_as(about: dict, size: Size) -> Detector:
    """Return a detector without memory for its tensors, of which a file says what it is."""
    experts = tuple(about.get("experts", NETWORKS))
    if not experts or experts != chosen(EXPERTS, experts):
        raise ValueError(f"{experts} are no experts")
    detector = empty_detector(about["model"], about["model_size"], size, experts)
    number = operator.index(about.get("good_images", 0))
    if not 0 <= number <= MOST_GOOD:
        raise ValueError(f"it was calibrated on {number} images")
    detector.good_scores = torch.empty(len(detector.rated), number, device="meta")
    for name, empty in [*detector.view.named_buffers()]:
        if about.get(name):
            setattr(detector.view, name, empty.new_empty((*empty.shape[:-2], *size)))
    return detector


def check_taken_in(about: dict) -> None:
    """Raise ValueError for what are no hashes of good images, each of which has added a score."""
    hashes = about.get("taken_in", [])
    if not (isinstance(hashes, list) and len(hashes) <= about.get("good_images", 0)):
        raise ValueError("it has taken in more images than it was calibrated on")
    if not all(isinstance(text, str) and len(text) == HASH_LENGTH for text in hashes):
        raise ValueError("the images that it has taken in have no hashes")


def check_state(detector: Detector) -> None:
    """Raise ValueError, or torch's RuntimeError, for what no training and no images can give."""
    if not all(map(is_finite, detector.parameters())):
        raise ValueError("a weight is not a finite number")
    if int(detector.bits) not in DEPTHS:
        raise ValueError(f"{int(detector.bits)} bits are no depth of images")
    view = detector.view
    if covers(view.unseen) or (view.ignored.numel() and not view.typical.numel()):
        raise ValueError("it ignores all of an image, or has nothing to put in its place")
    good = detector.good_scores
    if not (good.isfinite().all() and (good.diff() >= 0).all()):
        raise ValueError("its good images' scores do not rise")
    if detector.statistics:
        check_statistics(detector)


def check_statistics(detector: Detector) -> None:
    """Raise as `check_state` does for statistics."""
    scales, errors = detector.scales, detector.errors
    calibration = (scales, errors, detector.map_threshold)
    if not all(map(is_finite, (*calibration, *detector.statistics.buffers()))):
        raise ValueError("a statistic is not a finite number")
    if not ((scales[:, 1] > 0).all() and ((errors >= 0) & (errors <= 1)).all()):
        raise ValueError("its experts have impossible spreads or errors")
    for statistic in detector.statistics.values():
        if statistic.count < 1:
            raise ValueError(f"its statistics are of {int(statistic.count)} images")
        statistic.prepare()


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether all are finite numbers, in one pass: which of them is not, nobody asks."""
    return all(extreme.isfinite() for extreme in tensor.aminmax())  # either is nan, if one is
