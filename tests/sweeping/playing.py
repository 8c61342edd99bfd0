"""What tests of sweeps put in a training's place: a job of nothing, the files that it leaves."""

from collections.abc import Callable
from pathlib import Path

import main
from data.catalog import find_root, survey_category
from data.fingerprints import fingerprint
from evaluation.results import write_results
from sweeping.attempt import Ending, Job, Slot, place
from sweeping.board import GO_ON, Progress
from sweeping.finished import hash_of_tests, write_mark
from sweeping.grid import Task
from sweeping.mirror import Mirror
from tests.evaluation.made_up import made_up, save
from tests.evaluation.test_comparison import run as results_of
from utils.options import dataset_path, resolved
from utils.presets import parse
from utils.storage import Store


def job_called(name: str) -> Job:
    """Return a job of which nothing but its name counts."""
    nowhere = Path("nowhere")
    task = Task(name, "mvtec_ad", None, name, "", ())
    return Job(task, "", nowhere, nowhere, "--resume", nowhere, 0, nowhere)


def play(job: Job, slot: Slot, beat: Callable[[str, Progress], int]) -> Ending:
    """Be `attempt`: leave made-up metrics and results of the task's seed and model."""
    task, run = job.task, job.run
    beat(task.name, Progress("here", 2, "half"))
    options = parse(main.get_parser(), [*place(task, task.root), *task.arguments])
    root = find_root(task.dataset, dataset_path(options, task.dataset))
    category = survey_category(task.dataset, root, task.category, options.seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write_images(fingerprint(category, 1))
    run.write_config(resolved(options))
    metrics = made_up(task.dataset, options.seed)
    metrics["glae"] |= {"seed": options.seed, "options": {"model": options.model}}
    save(run.output, task.dataset, task.category, metrics)
    write_results(run.results_file, results_of(options.seed, 1))
    write_mark(run, job.options, hash_of_tests(task.dataset, root, task.category))
    if job.storage:
        Mirror(Store(job.storage), run, job.log, lambda line: GO_ON).send()
    return Ending(0, "all", "here")


class Played:
    """What is called in the place of an attempt: leaves what a training leaves."""

    def __init__(self):
        self.jobs: list[Job] = []
        self.meanwhile: Callable[[Job], None] = lambda job: None

    def __call__(self, job: Job, *more):
        self.jobs.append(job)
        self.meanwhile(job)
        return play(job, *more)

    @property
    def names(self) -> list[str]:
        """Return what was begun since the last call."""
        names = [job.task.name for job in self.jobs]
        self.jobs = []
        return names
