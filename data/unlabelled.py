"""Pictures in folders of `test` whose label is not known: scored, but in no metric."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from shlex import quote

from data.samples import Category, InputError, Sample

UNLABELLED = "unlabelled"
UNLABELLED_NAMES = (UNLABELLED, "unlabeled")  # of test, in any case: they need no naming


@dataclass(frozen=True)
class Labelling:
    """Which folders of `test` count: names that the user gave, and those known at the training.

    `known` None means that all are. Raises InputError for a folder named as both.
    """

    unlabelled: Collection[str] = ()
    labelled: Collection[str] = ()
    known: Collection[str] | None = None

    def __post_init__(self):
        if both := sorted({*self.unlabelled} & {*self.labelled}):
            names = ", ".join(both)
            raise InputError(f"--unlabelled and --labelled both name {names}: give one of them")

    def sets_apart(self, name: str) -> bool:
        """Tell whether a folder is unlabelled, whatever is in it."""
        if name in self.labelled:
            return False
        return name in self.unlabelled or name.lower() in UNLABELLED_NAMES


ALL_LABELLED = Labelling()  # but what `UNLABELLED_NAMES` sets apart


def set_apart(category: Category, labelling: Labelling) -> Category:
    """Move test images without a label to `unlabelled`, and note what the user may not expect.

    They are those of the folders that `labelling` names, and of those without masks that were not
    known when the run was trained; and those in sub-folders, say of another camera, that lack the
    mask which others of the defect have.
    """
    folders: dict[str, list[Sample]] = defaultdict(list)
    for sample in category.test:
        folders[sample.folder].append(sample)
    notes = [
        f"--{option} {quote(name)}: there are no images in test/{name} of {category.name}"
        for option, names in (
            ("unlabelled", labelling.unlabelled),
            ("labelled", labelling.labelled),
        )
        for name in sorted({*names} - {*folders})
    ]
    apart = {name for name in folders if labelling.sets_apart(name)}
    for name in sorted(apart):
        if unused := sum(len(sample.masks) for sample in folders[name]):
            notes.append(
                f"test/{name} of {category.name} is without a label, so that its masks are not "
                f"used ({unused}): --labelled {quote(name)} counts it as a defect"
            )
    for name, samples in folders.items():
        if name not in apart and is_new(name, samples, labelling):
            apart.add(name)
            masked = any(sample.masks for sample in category.test)
            notes.append(
                f"test/{name} of {category.name} has no masks and came after the training: scored "
                f"without a label; {'with masks, ' * masked}--labelled {quote(name)} counts it as "
                "a defect"
            )
    deeper = {
        s.image for name, of in folders.items() if name not in apart for s in without_mask(of)
    }
    if deeper:
        notes.append(
            f"{len(deeper)} test images in sub-folders of {category.name}, such as {min(deeper)}, "
            "have no mask, but others of the defect have: scored without a label"
        )
    test = [s for s in category.test if not (s.folder in apart or s.image in deeper)]
    moved = [replace(s, masks=()) for s in category.test if s.folder in apart or s.image in deeper]
    return replace(category, test=test, unlabelled=moved, notes=[*category.notes, *notes])


def without_mask(samples: list[Sample]) -> list[Sample]:
    """Return the images of a test folder that lie deeper and lack a mask that others have."""
    if not any(sample.masks for sample in samples):
        return []
    return [s for s in samples if s.label and not s.masks and len(s.place.parts) > 2]


def is_new(name: str, samples: list[Sample], labelling: Labelling) -> bool:
    """Tell whether a folder of `test` came after the training, and nothing tells its label."""
    if labelling.known is None or name in {*labelling.known, *labelling.labelled}:
        return False
    return all(sample.label and not sample.masks for sample in samples)


def unmasked(category: Category) -> list[str]:
    """Return a fault for each folder of `test` with images that lack a mask, if others have one."""
    masked = {sample.folder for sample in category.test if sample.masks}
    lacking: dict[str, list[Sample]] = defaultdict(list)
    for sample in category.test if masked else ():
        if sample.label and not sample.masks:
            lacking[sample.folder].append(sample)
    faults = []
    for name, samples in lacking.items():
        more = f" and {len(samples) - 1} more of test/{name}" if len(samples) > 1 else ""
        mend = f"score test/{name} without a label by --unlabelled {quote(name)}"
        if name in masked:
            mend = f"move it to test/{UNLABELLED}, which needs none"
        image = f"{samples[0].image}{more}"
        faults.append(f"there is no mask for {image}, but for others: add it, or {mend}")
    return faults
