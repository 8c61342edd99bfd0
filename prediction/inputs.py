"""Which pictures are meant, by files, folders and patterns; where what is made of each goes."""

import glob
import os
from pathlib import Path

from data.listing import list_images
from data.samples import InputError, noted, report_faults


def find_images(names: list[str]) -> tuple[list[Path], Path]:
    """Return each image that is meant, once, and the folder that all names have in common.

    A name is that of a file or a folder, or else a pattern, in which ** stands for any folders. Of
    a folder, all files named like images are meant. Raises InputError with every name that means
    none.
    """
    faults, found, bases = [], [], []
    for name in names:
        with noted(faults):
            images, base = images_of(name)
            found += images
            bases.append(base)
    report_faults(faults)
    return list(dict.fromkeys(found)), Path(os.path.commonpath(bases))


def images_of(name: str) -> tuple[list[Path], Path]:
    """Return the images that one name means, and the folder that they are in, absolute."""
    path = Path(name).expanduser()
    if path.is_dir():
        images, base = list_images(path), path
    elif os.path.lexists(path):
        images, base = [path], path.parent
    else:
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        images = [match for match in matches if match.is_file()]
        base = Path(os.path.commonpath([m.absolute().parent for m in images] or ["/"]))
    if not images:
        raise InputError(f"{name} is no image, no folder with images, and no pattern of any")
    return images, base.absolute()


def places(images: list[Path], base: Path) -> dict[Path, Path]:
    """Return where below a folder of results each image has its own: as below `base`.

    Without their suffixes, but where images differ in those alone.
    """
    whole = {image: image.absolute().relative_to(base) for image in images}
    bare = {image: place.with_suffix("") for image, place in whole.items()}
    return bare if len(set(bare.values())) == len(bare) else whole


def check_results(
    option: str, folder: Path, names: list[str], images: list[Path], targets: dict[Path, Path]
) -> None:
    """Raise InputError where results would be taken for images, or written over one of them.

    `names` are what `find_images` was given and found `images` by; `targets` are to be written.
    """
    inside = folder.resolve()
    for name in names:
        if Path(name).is_dir() and inside.is_relative_to(Path(name).resolve()):
            raise InputError(f"{option} {folder} lies in {name}, which is scored: name another")
    if {image.resolve() for image in images} & {path.resolve() for path in targets.values()}:
        raise InputError(f"{option} {folder} would replace images that are scored: name another")
