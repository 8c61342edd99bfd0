"""Galleries of a run's images: which are shown, in what order, and what is said of each."""

import argparse
import random
from collections import Counter
from itertools import chain, zip_longest

import numpy as np
from PIL import Image

from data.samples import ANOMALOUS, GOOD, noted
from evaluation.pictures import heat
from evaluation.results import (
    FALSE_ALARM,
    FOUND,
    MISSED,
    OUTCOMES,
    PASSED,
    UNLABELLED,
    ImageResult,
    worst_first,
)
from reporting.collected import Evaluated
from reporting.thumbnails import Thumbnail, thumbnails, webp
from utils.devices import Compute
from utils.labelling import add_labelling_options, load_test_set
from utils.options import add_path_options
from utils.runs import Run

SHOWN = 200  # images of a category: some 3 MB
SEED = 0  # of what is drawn at random: every run of a category shows the same images
COLOURS = 256  # of the colour bar

CALLED = (f"no label, called {ANOMALOUS}", f"no label, called {GOOD}")
CAPTIONS = (*OUTCOMES, *CALLED)


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    """Add which images are shown, and where they lie."""
    group = parser.add_argument_group("galleries")
    text = "images of a category: worst misses and false alarms, best hits, some at random"
    group.add_argument("--gallery", type=int, default=SHOWN, metavar="N", help=text)
    text = "show no maps of single experts: the detector need not look at the images again"
    group.add_argument("--no_expert_maps", action="store_true", help=text)
    add_path_options(group)
    add_labelling_options(group)


def outcome(result: ImageResult) -> str:
    """Return what became of an image, one of CAPTIONS."""
    if result.split == UNLABELLED:
        return CALLED[result.verdict == GOOD]
    return result.outcome


def at_random(results: list[ImageResult]) -> list[ImageResult]:
    """Return images in a random order, the same for every run of a category."""
    by_name = sorted(results, key=lambda result: result.image)
    return random.Random(SEED).sample(by_name, len(by_name))


def chosen(results: list[ImageResult], most: int) -> list[ImageResult]:
    """Return at most so many images, which the galleries share: each gives its next in turn."""
    rising = sorted(results, key=lambda result: result.score)
    falling = rising[::-1]
    galleries = [
        [result for result in rising if outcome(result) == MISSED],
        [result for result in falling if outcome(result) == FALSE_ALARM],
        [result for result in falling if outcome(result) == FOUND],
        [result for result in falling if result.split == UNLABELLED],
        at_random(results),
    ]
    in_turn = chain.from_iterable(zip_longest(*galleries))
    by_image = {result.image: result for result in in_turn if result}
    return [*by_image.values()][:most]


def all_galleries(
    found: list[Evaluated], options: argparse.Namespace, compute: Compute, faults: list[str]
) -> dict[Run, dict]:
    """Return `gallery_data` of each run; nothing where no images are to be shown.

    `options` are those of `add_gallery_options`, and what says how to compute.
    """
    if not options.gallery:
        return {}
    return {one.run: gallery_data(one, options, compute, faults) for one in found}


def gallery_data(
    one: Evaluated, options: argparse.Namespace, compute: Compute, faults: list[str]
) -> dict:
    """Return what the page's galleries of a run show, as JSON can hold it.

    What cannot be had, such as a map or all images, is one of the `faults`; the rest is shown.
    """
    ours, own_faults = one.metrics["glae"], []
    shown = worst_first(chosen(one.results, options.gallery), ours["threshold"] or 0)
    map_threshold = ours["map_threshold"]
    if map_threshold is None:  # an earlier version had one threshold, or wrote none
        map_threshold = ours["threshold"]
    pictures: dict[str, Thumbnail] = {}
    with noted(own_faults):
        places = {result.image for result in shown}
        scored = load_test_set(one.run, options)[0].scored if shown else []
        samples = [sample for sample in scored if sample.place.as_posix() in places]
        made = thumbnails(one.run, samples, map_threshold, options, compute, own_faults)
        pictures = {sample.place.as_posix(): picture for sample, picture in made}
        gone = places - {sample.place.as_posix() for sample in samples}
        own_faults += [f"there is no test image {place}" for place in sorted(gone)]
    if own_faults:
        more = f", and {len(own_faults) - 1} more" if len(own_faults) > 1 else ""
        faults.append(f"the gallery of {one.run.results_file}: {min(own_faults)}{more}")
    order = {result.image: number for number, result in enumerate(at_random(shown))}
    return {
        "images": [item(result, pictures, order[result.image]) for result in shown],
        "maps": [*dict.fromkeys(chain.from_iterable(p.maps for p in pictures.values()))],
        "has_threshold": map_threshold is not None,
        "marked": any(picture.truth for picture in pictures.values()),
        "total": len(one.results),
        "outcomes": outcome_counts(one.results),
        "defects": sorted({result.defect for result in shown}),
        "bar": webp(Image.fromarray(heat(np.linspace(0, 2, COLOURS)[None], 1))),
    }


def outcome_counts(results: list[ImageResult]) -> dict[str, int]:
    """Return the number of images of each outcome that they have at some threshold."""
    counts = Counter(map(outcome, results))
    pairs = [(MISSED, FOUND), (FALSE_ALARM, PASSED), CALLED]
    possible = {name for pair in pairs if any(counts[name] for name in pair) for name in pair}
    return {name: counts[name] for name in CAPTIONS if name in possible}


def item(result: ImageResult, pictures: dict[str, Thumbnail], random_place: int) -> dict:
    """Return what is said and shown of an image."""
    said = {
        "name": result.image,
        "defect": result.defect,
        "outcome": outcome(result),
        "verdict": result.verdict,
        "score": result.score,
        "p": result.p_value,
        "experts": result.experts,
        "random": random_place,
    }
    picture = pictures.get(result.image)
    return said | {"picture": picture and picture._asdict()}
