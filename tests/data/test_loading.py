"""Many images at once: work in the background, in order and not far ahead; batches."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import image_batches, in_background, load_images
from data.samples import InputError
from tests.data.waves import colours, write

# Work in the background


def test_background_work_keeps_the_order():
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * item

    assert list(in_background(slow_first, range(25), 4)) == [i * i for i in range(25)]


def test_background_work_is_done_side_by_side():
    together = threading.Barrier(2)
    results = in_background(lambda item: together.wait(timeout=20), range(2), 2)
    assert sorted(results) == [0, 1]


def test_background_work_with_no_worker_asked_for_still_runs():
    assert list(in_background(str, [3, 4], 0)) == ["3", "4"]
    assert list(in_background(str, [], 2)) == []


def test_an_error_in_a_worker_reaches_the_caller_at_its_place():
    def fail_at_3(item: int) -> int:
        if item == 3:
            raise InputError("item 3 is broken")
        return item

    results = in_background(fail_at_3, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="item 3"):
        next(results)


def test_background_work_never_runs_far_ahead():
    drawn = []

    def items():
        for item in range(200):
            drawn.append(item)
            yield item

    for taken, _ in enumerate(in_background(lambda item: item, items(), 3), start=1):
        assert len(drawn) - taken <= 2 * 3
    assert len(drawn) == 200


def test_background_work_stops_when_nobody_wants_more():
    done = []
    results = in_background(done.append, range(200), 2)
    next(results)
    results.close()
    count = len(done)
    time.sleep(0.05)
    assert len(done) == count < 10


# Loading, batches


def test_load_images_keeps_the_order_of_paths(tmp_path):
    paths = [write(tmp_path / f"{9 - i}.png", seed=i, size=(20 + i, 30)) for i in range(5)]
    images = load_images(paths, (16, 24), workers=2)
    assert images.shape == (5, 3, 16, 24)
    for i, image in enumerate(images):
        original = Image.fromarray(colours(20 + i, 30, seed=i))
        expected = np.asarray(original.resize((24, 16), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_load_images_names_the_file_that_is_broken(tmp_path):
    paths = [write(tmp_path / "a.png"), tmp_path / "b.png", write(tmp_path / "c.png")]
    paths[1].write_text("text")
    with pytest.raises(InputError, match=r"b\.png"):
        load_images(paths, (16, 24), workers=2)


def test_batches_are_filled_in_order_whatever_the_files_sizes(tmp_path):
    sizes = [(20, 30)] * 5 + [(30, 20)] * 2 + [(20, 30)] + [(18, 18)] * 3
    paths = [write(tmp_path / f"{i:02}.png", seed=i, size=size) for i, size in enumerate(sizes)]
    batches = list(image_batches(paths, (16, 16), 2, batch_size=3))
    assert [len(images) for images, _ in batches] == [3, 3, 3, 2]
    assert [size for _, own in batches for size in own] == sizes
    stacked = torch.cat([images for images, _ in batches])
    for i, (image, size) in enumerate(zip(stacked, sizes, strict=True)):
        original = Image.fromarray(colours(*size, seed=i))
        expected = np.asarray(original.resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_a_full_batch_at_the_end_is_not_followed_by_an_empty_one(tmp_path):
    paths = [write(tmp_path / f"{i}.png", seed=i) for i in range(4)]
    batches = list(image_batches(paths, (16, 16), 1, batch_size=2))
    assert [len(images) for images, _ in batches] == [2, 2]
