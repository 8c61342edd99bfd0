"""Which files and folders of a data set are taken, and which are passed over.

Links are followed wherever they lead: what is behind one is only ever decoded as an image. What is
written gets its name from the link's own place, and behind a link to a folder from the names in it:
those of its images get into maps' names, a run's list of images, and messages.
"""

import os
from pathlib import Path

from data.samples import GOOD, InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff")
IMAGE_SUFFIXES += (".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif")
IMAGE_SUFFIXES += (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf")
# What lies beside images and is meant to be none.
OTHER_SUFFIXES = (".txt", ".md", ".csv", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log")
OTHER_SUFFIXES += (".db", ".ini", ".zip", ".tar", ".gz", ".py")
GOOD_NAMES = (GOOD, "ok", "normal")  # in any case
MOST_FILES = 10**6  # of a product; more are behind a link to what is none
# What systems and archives leave behind: it holds copies of the data set's names.
SYSTEM_FOLDERS = ("__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir")


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is none of the user's."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_image(path: Path) -> bool:
    """Tell whether `path` is named like an image; hidden files (`._000.png`) are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)


def is_broken(path: Path) -> bool:
    """Tell whether `path` is a link that leads to nothing, or in a circle."""
    return path.is_symlink() and not path.exists()


def walk(folder: Path, most: int | None = None) -> list[Path]:
    """Return every file below `folder`, sorted, and every broken link; an absent folder has none.

    Links are followed; each folder is entered once, and none that `folder` itself lies in. Raises
    InputError naming a folder that cannot be read, or that holds more than `most` files and folders
    (MOST_FILES).
    """
    most, passed = most or MOST_FILES, 0
    if not folder.is_dir():
        return []
    found, seen = [], {identity(above) for above in folder.resolve().parents}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if identity(place) in seen:  # a link to a folder above would not end
            folders.clear()
            continue
        seen.add(identity(place))
        passed += len(folders) + len(names)
        if passed > most:
            raise InputError(f"{folder} holds more than {most} files: does a link lead elsewhere?")
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(place, name) for name in names if not is_hidden(name)]
    return sorted(found)


def identity(folder: Path | str) -> tuple[int, int]:
    """Return what two names of one folder have in common."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def refuse(error: OSError) -> None:
    """Raise InputError for a folder that cannot be listed, rather than pass it over."""
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def list_images(folder: Path) -> list[Path]:
    """Return the images in `folder` and its sub-folders, sorted; an absent folder has none."""
    return [path for path in walk(folder) if is_image(path)]


def list_folders(folder: Path) -> list[Path]:
    """Return the folders right inside `folder`, sorted; an absent folder has none."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def folders_called(folder: Path, *names: str) -> list[Path]:
    """Return the folders right inside `folder` that have one of these names, in any case."""
    return [path for path in list_folders(folder) if path.name.lower() in names]


def require_images(folder: Path, role: str) -> list[Path]:
    """Return the images in `folder` and its sub-folders.

    Raises InputError, which calls them `role`, when there are none.
    """
    paths = list_images(folder)
    if not paths:
        state = "is empty of images" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder} {state}: put the {role} images there")
    return paths


def broken_links(folder: Path, splits: list[Path], taken: set[Path]) -> list[str]:
    """Return a fault for each broken link in a product or its `splits`: it may be a folder's.

    One that is `taken` for an image is told where it is read.
    """
    paths = [*folder.iterdir(), *(path for split in splits for path in walk(split))]
    return [
        f"{path} is a link to what is not there: mend or remove it"
        for path in paths
        if is_broken(path) and path not in taken and not is_hidden(path.name)
    ]


def passed_over(
    folder: Path, splits: list[Path], taken: set[Path], read: tuple[str, ...]
) -> list[str]:
    """Return a note on the files in a product's `splits` that are not `taken`, if there are any.

    `read` are the splits that its images belong in. No file behind a link to a folder is named.
    """
    over = [
        path
        for split in splits
        for path in walk(split)
        if path not in taken and not is_broken(path) and path.suffix.lower() not in OTHER_SUFFIXES
    ]
    if not over:
        return []
    files = "1 file is" if len(over) == 1 else f"{len(over)} files are"
    shown = next((path for path in over if not is_behind_link(path, folder)), None)
    if shown is None:
        return [f"{folder}: {files} passed over, behind links to folders"]
    wrong = f"{shown.suffix or 'no suffix'} is not read"
    if is_image(shown):
        wrong = misplaced(shown.relative_to(folder), read)
    return [f"{folder}: {files} passed over, such as {shown.relative_to(folder)}: {wrong}"]


def is_behind_link(path: Path, folder: Path) -> bool:
    """Tell whether a folder between `folder` and a path below it is a link."""
    depth = len(path.relative_to(folder).parts) - 1
    return any(above.is_symlink() for above in path.parents[:depth])


def misplaced(place: Path, read: tuple[str, ...]) -> str:
    """Say where an image, whose place is below its product, should lie instead."""
    places = ", ".join(f"{split}/{GOOD}" for split in read)
    split = place.parts[0].lower()
    mend = f"into {split}/{GOOD}" if split in read and split != "test" else "there"
    return f"images belong in {places} or test/<defect>: put them {mend}"
