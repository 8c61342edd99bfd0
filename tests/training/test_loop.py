"""The training loop: the protocol, the loss log, losses that are not finite."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.images import jitter, normalise
from models.pdn import TEACHER_CHANNELS
from models.recipe import PUBLISHED
from tests.training.fitting import (
    COMPUTE,
    fit_to,
    losses_of,
    new_detector,
    options,
    run_in,
    same,
    some_images,
    train,
)
from training import loop, loss_log
from training.loop import batch_indices, jitter_changes, natural_batches
from training.steps import Optimisation
from utils.devices import Compute


def test_an_epoch_sees_every_image_once_in_a_new_order():
    first = [i for step in range(5) for i in batch_indices(step, 2, 10, seed=3)]
    second = [i for step in range(5, 10) for i in batch_indices(step, 2, 10, seed=3)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != [i for step in range(5) for i in batch_indices(step, 2, 10, seed=4)]


def test_order_and_jitter_are_drawn_from_streams_of_their_own(monkeypatch):
    """Of one stream, the numbers of step 3's jitter would be those of epoch 3's order."""
    entropies, real = [], np.random.default_rng

    def noted(entropy):
        entropies.append(tuple(entropy))
        return real(entropy)

    monkeypatch.setattr(np.random, "default_rng", noted)
    for number in range(4):
        batch_indices(number, 1, 1, seed=987)  # one image: every step is an epoch
        jitter_changes(number, 1, 987, 0.2)
    assert len(entropies) == len(set(entropies)) == 8
    assert {entropy[0] for entropy in entropies} == {987}


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("mps", False), ("cuda", True)])
@pytest.mark.parametrize(("workers", "prefetched"), [(0, None), (2, 8)])
def test_batches_are_pinned_for_the_device_in_use_and_fetched_ahead(
    natural, monkeypatch, device, pinned, workers, prefetched
):
    """Not where a GPU merely exists: --device cpu has no use for pinned memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []

    def noted(*_, **how):
        asked.append(how)
        return []

    monkeypatch.setattr("data.natural.DataLoader", noted)
    compute = Compute(torch.device(device))
    list(natural_batches(natural, (64, 64), options(workers=workers), PUBLISHED, range(3), compute))
    assert asked[0]["pin_memory"] is pinned
    assert asked[0]["prefetch_factor"] == prefetched


@pytest.mark.parametrize("steps", [1, 2, 10, 19, 20, 100, 65000, 70000])
def test_the_learning_rate_falls_tenfold_after_95_percent_of_the_steps(steps):
    rates = [PUBLISHED.learning_rate_at(step, steps) for step in range(steps)]
    assert rates.count(1e-4) == int(0.95 * steps) < steps
    assert rates == sorted(rates, reverse=True)
    assert set(rates) <= {1e-4, 1e-5}
    assert rates[-1] == 1e-5


def test_the_optimiser_follows_the_learning_rate_also_when_resumed():
    optimisation = Optimisation(new_detector(), 40, COMPUTE)
    followed = []
    for step in range(40):
        optimisation.set_learning_rate(step)
        followed.append(optimisation.adam.param_groups[0]["lr"])
    assert followed == [1e-4] * 38 + [1e-5] * 2
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
        [*twin.student.parameters(), *twin.autoencoder.parameters()],
        lr=1e-5,  # of one step, all come after 95 %
        weight_decay=1e-5,
    )
    torch.manual_seed(1)
    new_detector()  # leaves the generator where it was when training began
    batch = some_images()[batch_indices(0, 2, 4, seed=5)]
    jittered = jitter(batch, jitter_changes(0, 2, 5, 0.2))
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
        assert row["penalty"] == ""  # without natural images there is none
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == [1e-4] * 19 + [1e-5] * 2  # of the steps that lie beyond 95 %


def test_tensorboard_shows_no_penalty_where_there_is_none(tmp_path, natural, monkeypatch):
    shown = set()
    board = SimpleNamespace(add_scalar=lambda name, *_: shown.add(name), close=lambda: None)
    monkeypatch.setattr(loss_log, "open_tensorboard", lambda *_: board)
    train(tmp_path / "without", train_steps=1)
    terms = {"loss/hard", "loss/autoencoder", "loss/student_autoencoder"}
    assert shown == terms
    train(tmp_path / "with", natural, train_steps=1)
    assert shown == terms | {"loss/penalty"}


def test_natural_images_add_the_penalty(tmp_path, natural):
    run, _ = train(tmp_path / "run", natural)
    assert all(float(row["penalty"]) > 0 for row in losses_of(run))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    run, detector = run_in(tmp_path), new_detector()
    next(detector.student.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        fit_to(detector, run)


def test_training_goes_on_in_bfloat16(tmp_path):
    run, detector = run_in(tmp_path), new_detector()
    fit_to(detector, run, compute=replace(COMPUTE, precision="bf16"))
    assert all(np.isfinite(float(row["total"])) for row in losses_of(run))
    assert detector.teacher_mean.shape == (1, TEACHER_CHANNELS, 1, 1)


@pytest.mark.gpu
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
