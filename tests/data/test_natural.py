"""The natural-image stream: what an item depends on, broken files, the two views, resuming."""

import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data.images import decode
from data.natural import (
    Files,
    NaturalImages,
    distillation_view,
    find_natural_images,
    hold_out_natural,
    load_batches,
    penalty_view,
)
from data.samples import InputError
from data.workers import WorkerDied

SIZE = (24, 32)  # height, width


class FixedDraw:
    """Stand in for a generator whose every draw is `value`."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


def photo(seed: int, size: tuple[int, int] = (40, 60)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Make seven images in two classes."""
    for index in range(7):
        place = tmp_path / "natural" / f"n{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        photo(index).save(place / f"{index}.png")
    return tmp_path / "natural"


def stream(folder: Path, seed: int = 4) -> NaturalImages:
    return NaturalImages(find_natural_images(folder), SIZE, seed, penalty_view)


# Files


def test_images_are_found_at_any_depth_and_in_order(folder):
    (folder / "n0" / "deeper").mkdir()
    photo(9).save(folder / "n0" / "deeper" / "b.JPEG")
    (folder / "n0" / "._a.png").write_bytes(b"hidden")
    (folder / "n0" / "notes.txt").write_text("no image")
    found = [str(path.relative_to(folder)) for path in find_natural_images(folder).members()]
    expected = [f"n{i % 2}/{i}.png" for i in range(7)] + ["n0/deeper/b.JPEG"]
    assert found == sorted(expected, key=lambda name: Path(name).parts)


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    photo(9).save(tmp_path / "elsewhere" / "c.png")
    (folder / "n1" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "n1" / "circle").symlink_to(folder)
    found = find_natural_images(folder).members()
    assert len(found) == len({path.resolve() for path in found}) == 8


def test_a_missing_folder_names_the_option(tmp_path):
    with pytest.raises(InputError, match=r"--imagenet_train_path .*nowhere does not exist"):
        find_natural_images(tmp_path / "nowhere")


def test_an_empty_folder_names_the_option(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"--imagenet_train_path .*empty holds no image"):
        find_natural_images(tmp_path / "empty")


# Items


def test_an_item_depends_on_its_place_alone(folder):
    forwards, backwards = stream(folder), stream(folder)
    items = [forwards[i] for i in range(12)]
    for i in reversed(range(12)):
        np.random.seed(i)
        torch.manual_seed(i)
        assert torch.equal(backwards[i], items[i])


def test_items_are_views_of_the_files(folder):
    crops = {}
    for path in find_natural_images(folder).members():
        for grey in (0.0, 1.0):
            view = penalty_view(decode(path), SIZE, FixedDraw(grey))
            crops[view.numpy().tobytes()] = path
    seen = {crops[stream(folder)[i].numpy().tobytes()] for i in range(60)}
    assert seen == set(find_natural_images(folder).members())


def test_another_seed_gives_another_stream(folder):
    first, second = stream(folder, 0), stream(folder, 1)
    assert not all(torch.equal(first[i], second[i]) for i in range(8))


def test_workers_do_not_change_the_stream(folder):
    alone = torch.cat(list(load_batches(stream(folder), 2, range(5), workers=0)))
    shared = torch.cat(list(load_batches(stream(folder), 2, range(5), workers=2)))
    assert torch.equal(alone, shared)
    assert torch.equal(alone, torch.stack([stream(folder)[i] for i in range(10)]))


def test_resuming_gives_the_batches_that_running_through_would(folder):
    through = list(load_batches(stream(folder), 3, range(6), workers=0))
    resumed = list(load_batches(stream(folder), 3, range(4, 6), workers=0))
    assert len(through) == 6
    assert len(resumed) == 2
    assert all(torch.equal(a, b) for a, b in zip(through[4:], resumed, strict=True))


def test_an_item_takes_nothing_from_the_global_generator(folder):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    images = stream(folder)
    for i in range(4):
        images[i]
    assert torch.equal(torch.rand(3), expected)


# Broken files


def test_a_corrupt_file_is_skipped_with_a_warning(folder):
    good = {
        penalty_view(decode(path), SIZE, FixedDraw(grey)).numpy().tobytes()
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
    return NaturalImages(find_natural_images(folder), SIZE, 4, penalty_view, allowed)


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


# Several processes, held-out images


def test_the_parts_of_a_batch_are_the_batch(folder):
    whole = list(load_batches(stream(folder), 6, range(2, 5), 0))
    parts = [
        list(load_batches(stream(folder), 6, range(2, 5), 0, slice(2 * i, 2 * i + 2)))
        for i in range(3)
    ]
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([part[step] for part in parts]))


def test_held_out_images_are_not_trained_on(folder):
    rest, held_out = hold_out_natural(find_natural_images(folder), seed=1)
    assert len(held_out) == 1
    assert sorted([*rest.members(), *held_out]) == find_natural_images(folder).members()
    assert held_out == hold_out_natural(find_natural_images(folder), seed=1)[1]
    assert held_out != hold_out_natural(find_natural_images(folder), seed=0)[1]


def test_one_image_cannot_be_split(folder):
    with pytest.raises(InputError, match="only image"):
        hold_out_natural(Files(find_natural_images(folder).members()[:1]), seed=0)


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
        batches = begin(loader)
        yield next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        raise ConnectionResetError(104, "Connection reset by peer")

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


def test_loading_takes_nothing_from_the_global_generator(folder):
    before = torch.get_rng_state()
    list(load_batches(stream(folder), 2, range(2), workers=0))
    assert torch.equal(torch.get_rng_state(), before)


# Views


@pytest.mark.parametrize("size", [(24, 32), (256, 256), (33, 47)])
@pytest.mark.parametrize("grey", [False, True])
def test_the_penalty_view_is_a_centre_crop_of_twice_the_size(size, grey):
    image = photo(2, (70, 90))
    view = penalty_view(image, size, FixedDraw(0.29 if grey else 0.31))
    height, width = size
    twin = image.convert("L").convert("RGB") if grey else image
    twin = twin.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    left, top = width // 2, height // 2
    twin = twin.crop((left, top, left + width, top + height))
    assert view.dtype == torch.uint8
    np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), np.asarray(twin))


@pytest.mark.parametrize(("view", "share"), [(penalty_view, 0.3), (distillation_view, 0.1)])
def test_the_published_share_of_views_is_grey(view, share):
    image, rng, grey = photo(0, (4, 4)), np.random.default_rng(7), 0
    for _ in range(1500):
        output = view(image, (2, 2), rng)
        output = output if torch.is_tensor(output) else output[1]
        grey += bool((output == output[:1]).all())
    assert grey / 1500 == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_distillation_views_are_one_image_at_two_sizes(mirror):
    image = photo(3, (70, 90))
    large, small = distillation_view(image, SIZE, FixedDraw(1.0), mirror)
    pixels = np.asarray(image)[:, ::-1] if mirror else np.asarray(image)
    for view, size in ((large, (64, 48)), (small, (32, 24))):
        twin = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), np.asarray(twin))
