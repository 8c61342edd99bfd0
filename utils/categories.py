"""A run's images, read again after its training."""

from pathlib import Path

from data.catalog import find_root, read_category
from data.samples import Category, InputError
from data.unlabelled import ALL_LABELLED, Labelling
from utils.runs import Run


def load_category(
    run: Run, path: Path | None = None, labelling: Labelling = ALL_LABELLED
) -> tuple[Category, int]:
    """Read a run's images, from where it was trained unless a dataset's `path` says otherwise.

    Returns them with the run's seed, by which a validation split may have been drawn.
    """
    config = run.read_config() if run.config_file.exists() else {}
    stored, seed = config.get(f"{run.dataset}_path"), config.get("seed", 0)
    if not (isinstance(stored, str | None) and isinstance(seed, int) and seed >= 0):
        raise InputError(f"{run.config_file} is damaged: train this category again")
    root = find_root(run.dataset, path or (stored and Path(stored)))
    return read_category(run.dataset, root, run.subdataset, seed, labelling), seed
