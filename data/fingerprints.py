"""Which images a run was trained on: known again wherever they lie, told from any others."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.samples import Category, InputError, Sample, noted, require_file

CHUNK = 2**20  # bytes
LOOKED_AT = 16  # images, about, by which a product is known again
ENOUGH = 0.25  # part of them: products may share a blank or a reference picture
SHOWN = 3  # differences that are named
SPLITS = ("train", "validation")
HASH_LENGTH = 32  # signs

# split -> name -> size in bytes and hash; "test": the names of the test folders
Images = dict[str, dict[str, list] | list[str]]


def hash_of(path: Path) -> str:
    """Return what tells a file's content from any other's."""
    digest = hashlib.blake2b(digest_size=HASH_LENGTH // 2)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_and_hash(path: Path) -> list:
    """Return a file's size in bytes and its hash. Raises InputError when it cannot be read."""
    try:
        require_file(path)
        return [path.stat().st_size, hash_of(path)]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def by_name(category: Category) -> dict[str, Sample]:
    """Return the training and validation samples by their names below the category's folder."""
    samples = [*category.train, *category.validation]
    return {Path(os.path.relpath(s.image, category.folder)).as_posix(): s for s in samples}


def fingerprint(category: Category, workers: int) -> Images:
    """Return what is stored of the images that a run is trained and calibrated on."""
    from data.images import in_background  # here: it loads torch

    names, number = by_name(category), len(category.train)
    found = in_background(lambda sample: size_and_hash(sample.image), names.values(), workers)
    pairs = list(zip(names, found, strict=True))
    splits = dict(pairs[:number]), dict(pairs[number:])
    return dict(zip(SPLITS, splits, strict=True)) | {"test": category.test_folders}


def all_images(images: Images) -> dict[str, list]:
    """Return the entries of both splits by name."""
    return images["train"] | images["validation"]


def validated(images: Any) -> Images:
    """Return what a file says to be an `Images`. Raises ValueError when it is none."""
    splits = [images[split] for split in SPLITS]
    if not all(isinstance(split, dict) for split in splits) or not splits[0]:
        raise ValueError("its splits are none")
    for found in (value for split in splits for value in split.values()):
        if not (isinstance(found, list) and [type(part) for part in found] == [int, str]):
            raise ValueError("its images have no size and hash")
    if not (isinstance(images["test"], list) and all(isinstance(n, str) for n in images["test"])):
        raise ValueError("its test folders are none")
    return images


def digest_of(images: Images) -> str:
    """Return what tells a product from others, whichever of its images were held out."""
    text = repr(sorted(all_images(images).items()))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def differences(former: Images, now: Images) -> list[str]:
    """Return in words which images are not those of before."""
    before, after = all_images(former), all_images(now)
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(f"{name} is gone")
        elif name not in before:
            found.append(f"{name} is new")
        elif before[name] != after[name]:
            found.append(f"{name} has another content")
    return found


def as_held_out(category: Category, former: Images) -> Category:
    """Return the category with the validation images of before, if it has the same images."""
    names = by_name(category)
    if names.keys() != all_images(former).keys():
        return category
    splits = {split: [names[name] for name in former[split]] for split in SPLITS}
    return replace(category, **splits)


def check_same(former: Images, category: Category, workers: int, where: str) -> None:
    """Raise InputError, which names the first differences, for other images than before.

    `where` is the run that they belong to.
    """
    found = differences(former, fingerprint(category, workers))
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InputError(
            f"--resume: {where} was trained on other images: {', '.join(found[:SHOWN])}{more}: "
            "undo that, or --overwrite, or name another --output_dir"
        )


def check_product(former: Images, category: Category, where: str) -> None:
    """Raise InputError for the images of another product than that of the run `where`.

    It is known by a part of its images, under their names or others, whatever was added since. What
    cannot be read is passed over: scoring needs none of it.
    """
    before, names = all_images(former), by_name(category)
    stored = {tuple(found) for found in before.values()}
    there = [names[name].image for name in sorted(before.keys() & names.keys())]
    everything = [sample.image for sample in names.values()]
    if not any(is_known(paths, stored) for paths in (there, everything) if paths):
        raise InputError(
            f"{category.folder} does not hold the images that {where} was trained on: name that "
            "product's folder, or by --subdataset the run that is meant"
        )


def is_known(paths: list[Path], stored: set[tuple]) -> bool:
    """Tell whether enough of the images, of which a few are looked at, are among those `stored`."""
    looked_at = []
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        with noted([]):
            looked_at.append(tuple(size_and_hash(path)) in stored)
    return sum(looked_at) >= ENOUGH * len(looked_at)
