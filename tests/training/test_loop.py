"""The training loop: the protocol, the loss log, interruption and exact continuation."""

import argparse
import csv
import multiprocessing
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import draw_jitter, jitter, normalise
from data.natural import Files
from models.detector import TEACHER_CHANNELS, build_detector
from models.pdn import pdn_small
from training import loop, loss_log
from training.features import describe_training_images
from training.loop import batch_indices, fit
from training.steps import Optimisation, learning_rate
from utils.devices import Compute
from utils.files import read_about
from utils.interrupts import Interrupts
from utils.runs import Run

COMPUTE = Compute(torch.device("cpu"))
SIZE = (64, 72)


def options(**changes) -> argparse.Namespace:
    defaults = {
        "train_steps": 6,
        "batch_size": 1,
        "seed": 5,
        "workers": 0,
        "checkpoint_every": "1m",
    }
    return argparse.Namespace(**defaults | changes)


def run_in(folder: Path) -> Run:
    run = Run(folder, "demo", "kit")
    run.folder.mkdir(parents=True)
    return run


def some_images(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def new_detector():
    torch.manual_seed(1)
    teacher = pdn_small()
    for parameter in teacher.parameters():
        parameter.data *= 2
    detector = build_detector("glae", "small", SIZE, teacher.eval())
    describe_training_images(detector, some_images(), COMPUTE, budget=0)
    return detector


def fit_to(detector, run: Run, natural=None, compute: Compute = COMPUTE, **changes) -> None:
    """Train on some images with the teacher's features kept, as main.py does."""
    images = some_images().to(compute.device)
    features = describe_training_images(detector, images, compute, budget=64)
    assert features is not None
    fit(detector, images, features, natural, run, options(**changes), compute)


def train(folder: Path, natural=None, **changes):
    run, detector = run_in(folder), new_detector()
    fit_to(detector, run, natural, **changes)
    return run, detector


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def losses_of(run: Run) -> list[dict]:
    with run.losses_file.open() as file:
        return list(csv.DictReader(file))


def test_an_epoch_sees_every_image_once_in_a_new_order():
    first = [i for step in range(5) for i in batch_indices(step, 2, 10, seed=3)]
    second = [i for step in range(5, 10) for i in batch_indices(step, 2, 10, seed=3)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != [i for step in range(5) for i in batch_indices(step, 2, 10, seed=4)]


@pytest.mark.parametrize("steps", [1, 20, 100, 70000])
def test_the_learning_rate_falls_tenfold_after_95_percent_of_the_steps(steps):
    rates = [learning_rate(step, steps) for step in range(steps)]
    assert rates.count(1e-4) == -(-95 * steps // 100)
    assert set(rates) <= {1e-4, 1e-5}
    if steps >= 20:
        assert rates[-1] == 1e-5


def test_the_optimiser_follows_the_learning_rate_also_when_resumed():
    optimisation = Optimisation(new_detector(), 40, COMPUTE)
    followed = []
    for step in range(40):
        optimisation.set_learning_rate(step)
        followed.append(optimisation.adam.param_groups[0]["lr"])
    assert followed == [learning_rate(step, 40) for step in range(40)]
    resumed = Optimisation(new_detector(), 40, COMPUTE)
    resumed.load_state_dict({}, optimisation.state_dict() | {"step": 39})
    assert resumed.adam.param_groups[0]["lr"] == 1e-5


def test_the_optimiser_is_adam_with_the_published_numbers():
    adam = Optimisation(new_detector(), 100, COMPUTE).adam
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["lr"] == 1e-4
    assert adam.defaults["weight_decay"] == 1e-5


def test_one_step_is_the_step_that_plain_adam_takes(tmp_path):
    _, trained = train(tmp_path, train_steps=1, batch_size=2)
    twin = new_detector().train()
    adam = torch.optim.Adam(
        [*twin.student.parameters(), *twin.autoencoder.parameters()], lr=1e-4, weight_decay=1e-5
    )
    torch.manual_seed(1)
    new_detector()  # leaves the generator where it was when training began
    batch = some_images()[batch_indices(0, 2, 4, seed=5)]
    jittered = jitter(batch, draw_jitter(2, np.random.default_rng((5, 0))))
    sum(twin.losses(normalise(batch), normalise(jittered)).values()).backward()
    adam.step()
    for name, parameter in twin.student.named_parameters():
        ours = trained.student.get_parameter(name)
        torch.testing.assert_close(ours, parameter, atol=1e-6, rtol=1e-4)


def test_every_step_draws_its_own_jitter_and_a_seed_the_same_again(tmp_path, monkeypatch):
    real, drawn = loop.TrainingStep.__call__, []

    def step(self, indices, changes, *natural):
        drawn.append(tuple(changes.flatten().tolist()))
        return real(self, indices, changes, *natural)

    monkeypatch.setattr(loop.TrainingStep, "__call__", step)
    for number in range(2):
        train(tmp_path / str(number))
    assert len(set(drawn[:6])) == 6
    assert drawn[:6] == drawn[6:]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    states = [
        train(tmp_path / str(i), seed=seed)[1].state_dict() for i, seed in enumerate((5, 5, 6))
    ]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_training_changes_student_and_autoencoder_and_never_the_teacher(tmp_path):
    before, after = new_detector().state_dict(), train(tmp_path)[1].state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"student", "autoencoder"}


def test_training_lowers_the_loss(tmp_path):
    run, _ = train(tmp_path, train_steps=60)
    totals = [float(row["total"]) for row in losses_of(run)]
    assert np.mean(totals[-5:]) < 0.93 * np.mean(totals[:5])


def test_the_loss_log_has_every_term_and_their_sum(tmp_path):
    run, _ = train(tmp_path, train_steps=21)
    rows = losses_of(run)
    assert [int(row["step"]) for row in rows] == list(range(1, 22))
    for row in rows:
        terms = [float(row[name]) for name in ("hard", "autoencoder", "student_autoencoder")]
        assert float(row["total"]) == pytest.approx(sum(terms))
        assert float(row["penalty"]) == 0
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[:-1] == [1e-4] * 20
    assert rates[-1] == 1e-5  # of the step that lies beyond 95 %


def stop_after(steps: int, monkeypatch) -> None:
    """Send the process SIGINT, as Ctrl-C does, during the step `steps`."""
    counted = iter(range(10**6))
    real = Optimisation.step

    def step(self, loss):
        real(self, loss)
        if next(counted) == steps - 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Optimisation, "step", step)


@pytest.fixture
def natural(tmp_path) -> Files:
    """Make a few natural images."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), "uint8")).save(path)
    return Files(paths)


@pytest.mark.parametrize(("penalty", "rows"), [(False, 1000), (True, 1000), (False, 3)])
def test_an_interrupted_run_that_is_resumed_ends_bit_for_bit_like_one_that_was_not(
    tmp_path, monkeypatch, natural, penalty, rows
):
    natural = natural if penalty else None
    monkeypatch.setattr(loss_log, "MOST_ROWS", rows)  # few: one is interrupted, too
    whole_run, whole = train(tmp_path / "whole", natural, train_steps=9)
    run, detector = run_in(tmp_path / "parts"), new_detector()
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(KeyboardInterrupt, match="step 4"):
            fit_to(detector, run, natural, train_steps=9)
    torch.manual_seed(99)  # a new process would not have the old generator's state
    resumed = new_detector()
    fit_to(resumed, run, natural, train_steps=9)
    assert same(whole.state_dict(), resumed.state_dict())
    assert losses_of(run) == losses_of(whole_run)


def test_what_an_interrupt_stops_is_saved_whenever_in_a_step_it_comes(tmp_path, monkeypatch):
    """Asked twice in one step, it could be there only the second time: stopped, and not saved."""
    answers = iter([False] * 3 + [True] * 9)
    monkeypatch.setattr(loop.Interrupts, "requested", property(lambda _: next(answers)))
    run, detector = run_in(tmp_path), new_detector()
    with pytest.raises(KeyboardInterrupt, match="step 4"):
        fit_to(detector, run, train_steps=9)
    assert read_about(run.checkpoint_file)["step"] == 4


def test_a_run_resumed_in_another_memory_format_goes_on_from_the_same_state(tmp_path, monkeypatch):
    """The optimiser's moments are laid out as the weights are: its fused step pairs them so."""

    def last_loss(folder: Path, memory_format: str) -> float:
        run, detector = run_in(folder), new_detector()
        with monkeypatch.context() as patch:
            stop_after(6, patch)
            with pytest.raises(KeyboardInterrupt):
                fit_to(COMPUTE.place(detector), run, train_steps=9)
        compute = replace(COMPUTE, memory_format=memory_format)
        resumed = compute.place(new_detector())
        for module in resumed.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # where its random numbers fall depends on the layout
        fit_to(resumed, run, compute=compute, train_steps=9)
        return float(losses_of(run)[-1]["total"])

    plain = last_loss(tmp_path / "last", "channels_last")
    assert last_loss(tmp_path / "first", "channels_first") == pytest.approx(plain, rel=1e-4)


def test_a_run_is_not_resumed_with_another_teacher(tmp_path):
    run, _ = train(tmp_path)
    other = new_detector()
    next(other.teacher.parameters()).data += 0.01
    with pytest.raises(loop.InputError, match="another teacher"):
        fit_to(other, run)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    """The third step's loss is sound still, but the weights that it leaves are not."""
    monkeypatch.setattr(loss_log, "MOST_ROWS", 1)
    real = loop.Optimisation.step
    steps = []

    def step(self, loss):
        steps.append(loss)
        real(self, loss * float("nan") if len(steps) == 3 else loss)

    monkeypatch.setattr(loop.Optimisation, "step", step)
    run, detector = run_in(tmp_path), new_detector()
    with pytest.raises(FloatingPointError, match=r"after step 3.*checkpoint of step 2 is kept"):
        fit_to(detector, run, train_steps=9, checkpoint_every="1")
    assert read_about(run.checkpoint_file)["step"] == 2
    monkeypatch.setattr(loop.Optimisation, "step", real)
    resumed = new_detector()
    fit_to(resumed, run, train_steps=9)
    _, whole = train(tmp_path / "whole", train_steps=9)
    assert same(whole.state_dict(), resumed.state_dict())


def test_a_finished_run_that_is_resumed_takes_no_further_step(tmp_path):
    run, detector = train(tmp_path)
    again = new_detector()
    fit_to(again, run)
    assert same(detector.state_dict(), again.state_dict())
    assert len(losses_of(run)) == 6


def test_an_interrupted_run_leaves_no_process_behind(tmp_path, monkeypatch, natural):
    run, detector = run_in(tmp_path / "run"), new_detector()
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt) as held:  # whose traceback knows all variables
        fit_to(detector, run, natural, train_steps=9, workers=2)
    assert held
    assert not multiprocessing.active_children()


def test_natural_images_add_the_penalty(tmp_path, natural):
    run, _ = train(tmp_path / "run", natural)
    assert all(float(row["penalty"]) > 0 for row in losses_of(run))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    run, detector = run_in(tmp_path), new_detector()
    next(detector.student.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        fit_to(detector, run)


def test_a_damaged_checkpoint_is_named(tmp_path):
    run, _ = train(tmp_path)
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:1000])
    with pytest.raises(loop.InputError, match=r"checkpoint\.safetensors is damaged"):
        fit_to(new_detector(), run)


def test_training_goes_on_in_bfloat16(tmp_path):
    run, detector = run_in(tmp_path), new_detector()
    fit_to(detector, run, compute=replace(COMPUTE, precision="bf16"))
    assert all(np.isfinite(float(row["total"])) for row in losses_of(run))
    assert detector.teacher_mean.shape == (1, TEACHER_CHANNELS, 1, 1)


def test_the_first_interrupt_only_asks_and_a_later_one_raises(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("utils.interrupts.time.monotonic", lambda: now[0])
    with Interrupts() as interrupts:
        assert not interrupts.requested
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.requested
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, passed on by a parent process
        now[0] += 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("compiler", ["none", "graph"])
def test_a_training_step_never_waits_for_the_gpu(tmp_path, monkeypatch, compiler):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device, run, detector = torch.device("cuda"), run_in(tmp_path), new_detector().cuda()
    monkeypatch.setattr(loop.LossLog, "write", lambda *_: 0.0)  # displays, and so waits
    real = loop.TrainingStep.__call__
    calls = []

    def step(self, *arguments):
        calls.append(None)
        torch.cuda.set_sync_debug_mode("error" if len(calls) > 5 else "default")
        return real(self, *arguments)  # a capture comes after three steps

    monkeypatch.setattr(loop.TrainingStep, "__call__", step)
    monkeypatch.setattr(loop.Saving, "save", lambda *_: None)
    try:
        fit_to(detector, run, compute=Compute(device, "bf16", compiler), train_steps=12)
    finally:
        torch.cuda.set_sync_debug_mode("default")
