"""What a test set lacks, in words, where a table can only show a dash."""

from evaluation.protocol import LOCO_SUBSETS


def gaps(measured: dict, saturated: bool) -> list[str]:
    """Return why some of a category's metrics are None, from its metrics as they are stored.

    `saturated` is whether it is measured as MVTec LOCO is, whose two subsets are both expected.
    """
    ours = measured["glae"]
    image_aurocs = ours.get("auroc_by_defect", {})
    pixel_aurocs = ours.get("pixel_auroc_by_defect", {})
    if not image_aurocs:
        return ["no defective test images"]
    found = ["no good test images"] if None in image_aurocs.values() else []
    if saturated:
        found += [f"no test images of {kind}" for kind in LOCO_SUBSETS if kind not in image_aurocs]
    if ours["pixel_auroc"] is None:
        found.append("no masks")
    elif saturated:
        present = [kind for kind in LOCO_SUBSETS if kind in image_aurocs]
        found += [f"no masks of {kind}" for kind in present if pixel_aurocs.get(kind) is None]
    return found
