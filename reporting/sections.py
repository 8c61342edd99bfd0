"""What stands where on the page: a section a dataset, in it one a category, in it a block a run."""

from dataclasses import dataclass

from evaluation.tables import row_name
from reporting.charts import chart_data
from reporting.collected import Evaluated, Folders, as_stored, models_of
from reporting.comparison import SideBySide, by_each_metric
from reporting.figures import Defect, Figure, defects, figures, values
from reporting.headline import Table, headline
from reporting.training import Training, options, training
from utils.runs import Run


@dataclass(frozen=True)
class Block:
    """One run of a category."""

    run: Run
    slug: str  # of its elements' ids: no name is in it
    name: str  # what tells it from the category's other runs
    figures: list[Figure]
    values: list[tuple[str, str]]
    defects: list[Defect]
    charts: dict  # see `chart_data`
    training: Training

    @property
    def warned(self) -> bool:
        return any(figure.warning for figure in self.figures)


@dataclass(frozen=True)
class Category:
    slug: str
    name: str
    blocks: list[Block]

    @property
    def warned(self) -> bool:
        return any(block.warned for block in self.blocks)


@dataclass(frozen=True)
class Section:
    """What is shown of a dataset."""

    slug: str
    dataset: str
    table: Table
    compared: list[SideBySide]  # none of one model
    categories: list[Category]


def sections(found: list[Evaluated], faults: list[str]) -> list[Section]:
    """Arrange what was evaluated; add a line to `faults` for what cannot be read."""
    datasets: dict[str, list[Evaluated]] = {}
    for one in found:
        datasets.setdefault(one.run.dataset, []).append(one)
    return [
        section(f"dataset-{number}", dataset, of, faults)
        for number, (dataset, of) in enumerate(datasets.items())
    ]


def section(slug: str, dataset: str, found: list[Evaluated], faults: list[str]) -> Section:
    """Arrange what was evaluated of one dataset."""
    models = models_of(found)
    stored = as_stored(models)
    categories = [
        Category(place, row_name(dataset, name), blocks(place, name, models, faults))
        for place, name in (
            (f"{slug}-{number}", name)
            for number, name in enumerate(sorted({one.run.subdataset for one in found}))
        )
    ]
    return Section(
        slug, dataset, headline(dataset, stored), by_each_metric(dataset, stored), categories
    )


def blocks(slug: str, category: str, models: Folders, faults: list[str]) -> list[Block]:
    """Return a block for each run of a category, model by model."""
    named = [
        (model, run[category]) for model, of in models.items() for run in of if category in run
    ]
    settings = options([one for _, one in named], faults)
    return [
        Block(
            one.run,
            f"{slug}-{number}",
            run_name(model, one),
            figures(one),
            values(one),
            defects(one),
            chart_data(one),
            training(one, settings[number], faults),
        )
        for number, (model, one) in enumerate(named)
    ]


def run_name(model: str, one: Evaluated) -> str:
    """Return what tells a run from the others of its category."""
    seed = one.metrics["glae"].get("seed")
    parts = (model, "" if seed is None else f"seed {seed}", str(one.run.output))
    return ", ".join(filter(None, parts))
