"""The training loop: EfficientAD's protocol, which GLAE shares."""

import argparse
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import repeat

import torch

from data.draws import Draw, generator, permutation
from data.images import Size, draw_jitter
from data.natural import PREFETCHED, Files, NaturalImages, load_batches, penalty_view
from data.samples import InputError
from data.shards import Shards
from data.workers import WorkerDied
from models.detector import Detector
from models.recipe import Recipe
from training.checkpoints import Saving, load_checkpoint
from training.closed_form import fit_student
from training.loss_log import LossLog, row_every
from training.steps import (
    TERMS,
    Optimisation,
    TrainingStep,
    for_training,
    teacher_in,
)
from utils.devices import Compute
from utils.interrupts import Interrupts
from utils.progress import progress
from utils.runs import Run


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which training images `step` sees: epochs of shuffled images without a gap."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = [permutation(seed, Draw.ORDER, p // count, count) for p in positions]
    return [int(order[p % count]) for order, p in zip(orders, positions, strict=True)]


def jitter_changes(step: int, batch_size: int, seed: int, most: float) -> torch.Tensor:
    """Return how the images that `step` sees are jittered, see `draw_jitter`."""
    return draw_jitter(batch_size, generator(seed, Draw.JITTER, step), most)


def natural_batches(
    source: Files | Shards | None,
    size: Size,
    options: argparse.Namespace,
    recipe: Recipe,
    steps: range,
    compute: Compute,
) -> Iterator[torch.Tensor | None]:
    """Yield the penalty's natural images for each step, uint8 (B, 3, H, W); None without any."""
    if source is None:
        yield from repeat(None, len(steps))
        return
    view = partial(penalty_view, grey=recipe.penalty_probability)
    images = NaturalImages(source, size, options.seed, view)
    ahead = {"pinned": compute.on_cuda, "prefetched": PREFETCHED}
    yield from load_batches(images, options.batch_size, steps, options.workers, **ahead)


def fit(
    detector: Detector,
    images: torch.Tensor,
    features: torch.Tensor | None,
    natural: Files | Shards | None,
    run: Run,
    options: argparse.Namespace,
    compute: Compute,
) -> None:
    """Train student and autoencoder on `images`, uint8 (N, 3, H, W), on the device.

    A student in closed form follows in the end, since it imitates the trained autoencoder.
    `features` are the teacher's of these images, see `TrainingStep`. Goes on from the run's
    checkpoint if there is one. Checkpoints by --checkpoint_every, when interrupted, which raises
    KeyboardInterrupt, and when no natural image comes any more. Raises FloatingPointError, and
    keeps the last checkpoint, when a loss is not finite. On the CPU the same options, seed and
    number of threads give the same weights.
    """
    steps, seed, count = options.train_steps, options.seed, options.batch_size
    recipe = detector.recipe
    compute = for_training(compute)
    detector.train()
    optimisation = Optimisation(detector, steps, compute)
    former = load_checkpoint(run, detector, optimisation)
    done, every = former["step"], row_every(steps)
    needed = None if recipe.ridge else features  # of a step: the autoencoder sees jittered images
    train_step = TrainingStep(detector, optimisation, images, needed, count, compute)
    absent = ("penalty",) if natural is None else ()
    if recipe.ridge:
        absent = tuple(term for term in TERMS if term != "autoencoder")
    log = LossLog(run.losses_file, TERMS, done, compute.device, every, former["losses"], absent)
    saving = Saving(run, detector, optimisation, log, former, options.checkpoint_every)
    size, ahead = images.shape[-2:], range(done, steps)
    streamed = natural_batches(natural, size, options, recipe, ahead, compute)
    bar = progress("training", steps, "step", initial=done)
    try:
        # closing ends the stream's processes
        with teacher_in(compute.dtype, detector), closing(streamed), Interrupts() as interrupts:
            for views in streamed:
                indices = batch_indices(done, count, len(images), seed)
                optimisation.set_learning_rate(done)
                changes = jitter_changes(done, count, seed, recipe.jitter)
                log.add(train_step(indices, changes, views))
                done += 1
                bar.update()
                if done % every == 0 or done == steps:  # reading the loss waits for the device
                    total = log.write(optimisation.learning_rate(done - 1))
                    bar.set_postfix(loss=f"{total:.4f}", refresh=False)
                stop = interrupts.requested  # once: it may come between two questions
                if saving.due(done) or done == steps or stop:
                    saving.save(done)
                if stop:
                    raise KeyboardInterrupt(f" at step {done}")
    except (InputError, WorkerDied) as error:  # of the stream, between two steps
        if done > saving.due.step:
            saving.save(done)
        raise type(error)(f"{error}; {saving.kept()}") from error
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}; {saving.kept()}") from error
    finally:
        bar.close()
        log.close()
        optimisation.adam.zero_grad(set_to_none=True)  # a graph's memory would stay with them
    if recipe.ridge:
        fit_student(detector, images, features, compute, seed)
