"""Natural images that cannot be read, and workers that fail or are killed."""

import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.images import decode
from data.natural import NaturalImages, find_natural_images, load_batches, penalty_view
from data.samples import InputError
from data.workers import WorkerDied
from tests.data.photos import SIZE, VIEW, FixedDraw, stream


def test_a_corrupt_file_is_skipped_with_a_warning(folder):
    good = {
        penalty_view(decode(path), SIZE, FixedDraw(grey), 0.3).numpy().tobytes()
        for path in find_natural_images(folder).members()
        for grey in (0.0, 1.0)
    }
    broken = folder / "n1" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 cut short")
    images = stream(folder)
    with pytest.warns(UserWarning, match=r"skipped: .*broken\.jpg"):
        items = [images[i] for i in range(40)]
    assert all(item.numpy().tobytes() in good for item in items)


def test_good_files_give_no_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stream(folder)[0].shape == (3, *SIZE)


def test_a_skipped_file_leaves_the_stream_repeatable(folder):
    (folder / "n1" / "broken.jpg").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = [stream(folder)[i] for i in range(20)]
        again = [stream(folder)[i] for i in reversed(range(20))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


@pytest.mark.filterwarnings("ignore:skipped")
def test_nothing_but_corrupt_files_is_an_input_error(folder):
    for path in find_natural_images(folder).members():
        path.write_text("not a picture")
    with pytest.raises(InputError, match=r"51 of 51 reads .*\.png"):
        stream(folder)[0]


def broken_stream(folder: Path, allowed: float) -> NaturalImages:
    """One of eight files is broken."""
    (folder / "n1" / "broken.jpg").write_bytes(b"")
    return NaturalImages(find_natural_images(folder), SIZE, 4, VIEW, allowed)


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("workers", [0, 2])
def test_more_unreadable_images_than_allowed_end_the_stream(folder, workers):
    images = broken_stream(folder, 0.05)
    first = r"5\d" if workers else "51"  # both processes may read one too many at once
    with pytest.raises(InputError, match=rf"{first} of \d+ reads .* share of 0\.05; .*broken"):
        list(load_batches(images, 4, range(200), workers))
    assert images.unreadable.number >= 51


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_allowed_share_is_skipped_and_counted(folder, workers):
    images = broken_stream(folder, 0.3)
    draws = []
    for position in range(400):
        rng = np.random.default_rng((4, 1, position))
        while images.source.pick(position, 0, 4, rng).name == "broken.jpg":
            draws.append(position)
    assert len(list(load_batches(images, 4, range(100), workers))) == 100
    assert images.unreadable.number == len(draws) > 30
    assert images.unreadable.asked.value == 400 + len(draws)


def test_not_even_one_may_be_forbidden(folder):
    images = broken_stream(folder, 0)
    with pytest.raises(InputError, match="1 of"):
        [images[i] for i in range(100)]


def test_only_the_first_unreadable_images_are_named(folder):
    images = broken_stream(folder, 0.3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for position in range(200):
            images[position]
    assert len(caught) == 10 < images.unreadable.number


# Workers


@pytest.mark.parametrize("workers", [0, 1])
def test_a_workers_error_is_one_line(folder, workers):
    for path in find_natural_images(folder).members():
        path.write_text("not a picture")
    with warnings.catch_warnings(), pytest.raises(InputError, match="51 of 51 reads") as caught:
        warnings.simplefilter("ignore")
        list(load_batches(stream(folder), 2, range(1), workers))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()  # or Python would wait for them at its exit


def test_a_worker_killed_while_it_sends_is_no_error_of_a_connection(folder, monkeypatch):
    """The connection is lost a moment before its process is gone."""
    begin = DataLoader.__iter__

    def cut_off(loader):
        batches = begin(loader)  # at once: what follows relies on torch's handler being gone

        def cut():
            yield next(batches)
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            raise ConnectionResetError(104, "Connection reset by peer")

        return cut()

    for _ in DataLoader(range(2), num_workers=1):  # it leaves torch's handler behind
        pass
    monkeypatch.setattr(DataLoader, "__iter__", cut_off)
    batches = load_batches(stream(folder), 2, range(100), workers=1)
    assert len(next(batches)) == 2
    with pytest.raises(WorkerDied, match="was killed"):
        next(batches)


def test_an_error_of_this_process_is_not_laid_on_the_workers(folder, monkeypatch):
    def fail(loader):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(DataLoader, "__iter__", fail)
    with pytest.raises(OSError, match="Too many open files"):
        next(load_batches(stream(folder), 2, range(2), workers=1))
