"""Interruption and exact continuation, from sound checkpoints only."""

import multiprocessing
import signal
import threading
from pathlib import Path

import pytest
import torch

from tests.training.fitting import COMPUTE, fit_to, losses_of, new_detector, run_in, same, train
from training import checkpoints, loop, loss_log
from training.steps import Optimisation
from utils.interrupts import Interrupts
from utils.tensors import read_about


def stop_after(steps: int, monkeypatch) -> None:
    """Send the process SIGINT, as Ctrl-C does, during the step `steps`."""
    counted = iter(range(10**6))
    real = Optimisation.step

    def step(self, loss):
        real(self, loss)
        if next(counted) == steps - 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Optimisation, "step", step)


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


def test_weights_in_another_memory_format_go_on_from_the_same_state(tmp_path, monkeypatch):
    """The optimiser's moments are laid out as the weights are: its fused step pairs them so."""

    def last_loss(folder: Path, layout: torch.memory_format) -> float:
        run, detector = run_in(folder), new_detector()
        with monkeypatch.context() as patch:
            stop_after(6, patch)
            with pytest.raises(KeyboardInterrupt):
                fit_to(COMPUTE.place(detector), run, train_steps=9)
        resumed = new_detector().to(memory_format=layout)
        for module in resumed.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # where its random numbers fall depends on the layout
        fit_to(resumed, run, train_steps=9)
        return float(losses_of(run)[-1]["total"])

    plain = last_loss(tmp_path / "last", torch.channels_last)
    other = last_loss(tmp_path / "first", torch.contiguous_format)
    assert other == pytest.approx(plain, rel=1e-4)


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


def test_a_damaged_checkpoint_is_named(tmp_path):
    run, _ = train(tmp_path)
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:1000])
    with pytest.raises(loop.InputError, match=r"checkpoint\.safetensors is damaged"):
        fit_to(new_detector(), run)


def test_the_first_interrupt_only_asks_and_a_later_one_raises(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("utils.interrupts.time.monotonic", lambda: now[0])
    asked = threading.Event()
    with Interrupts(asked.set) as interrupts:
        assert not interrupts.requested and not asked.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.requested and asked.wait(5)
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, passed on by a parent process
        now[0] += 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_checkpoint_that_drew_other_numbers_is_gone_on_with_and_that_is_said(
    tmp_path, monkeypatch
):
    run, detector = run_in(tmp_path), new_detector()
    with monkeypatch.context() as patch:
        stop_after(6, patch)
        patch.setattr(checkpoints, "DRAWS", 1)
        with pytest.raises(KeyboardInterrupt):
            fit_to(detector, run, train_steps=9)
    with pytest.warns(UserWarning, match="drew other random numbers"):
        fit_to(new_detector(), run, train_steps=9)
    assert losses_of(run)[-1]["step"] == "9"
