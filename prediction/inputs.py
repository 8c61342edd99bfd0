"""Which pictures are meant, by files, folders and patterns; where what is made of each goes."""

import argparse
import glob
import os
from pathlib import Path

from data.listing import is_image, list_images
from data.samples import InputError, noted, report_faults

Places = dict[Path, Path]  # image -> where it lies below the folder that all have in common


def find_images(names: list[str]) -> Places:
    """Return each image that is meant, once, and the place below a folder of results that it has.

    A name is that of a file or a folder, or else a pattern, in which ** stands for any folders. Of
    a folder and by a pattern, files named like images are meant. Places are below the folder that
    all names have in common, without suffixes, but where images differ in those alone. Raises
    InputError with every name that means no image.
    """
    faults, found, folders = [], {}, []
    for name in names:
        with noted(faults):
            images, folder = images_of(Path(name).expanduser())
            folders.append(os.path.abspath(folder))
            for image in images:  # not resolved: a link has a name of its own
                found.setdefault(os.path.abspath(image), image)
    report_faults(faults)
    common = os.path.commonpath(folders)
    whole = {image: Path(os.path.relpath(place, common)) for place, image in found.items()}
    bare = {image: place.with_suffix("") for image, place in whole.items()}
    return bare if len(set(bare.values())) == len(bare) else whole


def images_of(path: Path) -> tuple[list[Path], Path]:
    """Return the images that one name means, and the folder that they are in."""
    if path.is_dir():
        images, folder = list_images(path), path
    elif os.path.lexists(path):
        images, folder = [path], path.parent
    else:
        matches = map(Path, sorted(glob.glob(str(path), recursive=True)))
        images = [match for match in matches if match.is_file() and is_image(match)]
        folder = Path(os.path.commonpath([image.parent for image in images])) if images else path
    if not images:
        raise InputError(f"{path} is no image, no folder with images, and no pattern of any")
    return images, folder


def check_source(options: argparse.Namespace) -> list[str]:
    """Return the fault of options that name nothing to score, or two things."""
    names = ("watch", "video", "camera")
    sources = {"IMAGES": options.images} | {f"--{name}": getattr(options, name) for name in names}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        found = f"not {' and '.join(given)}" if given else "not none"
        return [f"name one thing to score, {found}: IMAGES, --watch, --video or --camera"]
    if given[0] in ("IMAGES", "--watch") and options.every != 1:
        return ["--every is for --video and --camera: leave it out"]
    return []


def check_apart(option: str, folder: Path, names: list[str]) -> list[str]:
    """Return the fault of a folder of results that would be taken for images the next time."""
    scored = [path for path in (Path(name).expanduser() for name in names) if path.is_dir()]
    inside = folder.resolve()
    return [
        f"{option} {folder} lies in {path}, which is scored: name another"
        for path in scored
        if inside.is_relative_to(path.resolve())
    ]


def check_results(results: dict[str, list[Path]], kept: list[Path]) -> list[str]:
    """Return a fault for each option whose files would replace another's, or one that is read.

    `results` are what each option is to write, `kept` the images and the detector.
    """
    faults, taken = [], {path.resolve() for path in kept}
    for option, paths in results.items():
        targets = {path.resolve() for path in paths}
        if hit := min(targets & taken, default=None):
            faults.append(f"--{option}: {hit} would be replaced, which is needed: name another")
        taken |= targets
    return faults
