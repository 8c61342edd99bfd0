"""The natural-image stream: what an item depends on, resuming, held-out images, the two views."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import decode
from data.natural import (
    Files,
    distillation_view,
    find_natural_images,
    hold_out_natural,
    load_batches,
    penalty_view,
)
from data.samples import InputError
from tests.data.photos import SIZE, VIEW, FixedDraw, photo, stream

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
            view = penalty_view(decode(path), SIZE, FixedDraw(grey), 0.3)
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


def test_loading_takes_nothing_from_the_global_generator(folder):
    before = torch.get_rng_state()
    list(load_batches(stream(folder), 2, range(2), workers=0))
    assert torch.equal(torch.get_rng_state(), before)


# Views


@pytest.mark.parametrize("size", [(24, 32), (256, 256), (33, 47)])
@pytest.mark.parametrize("grey", [False, True])
def test_the_penalty_view_is_a_centre_crop_of_twice_the_size(size, grey):
    image = photo(2, (70, 90))
    view = penalty_view(image, size, FixedDraw(0.29 if grey else 0.31), 0.3)
    height, width = size
    twin = image.convert("L").convert("RGB") if grey else image
    twin = twin.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    left, top = width // 2, height // 2
    twin = twin.crop((left, top, left + width, top + height))
    assert view.dtype == torch.uint8
    apart = np.abs(view.permute(1, 2, 0).numpy() - np.asarray(twin, int))
    odd = height % 2 or width % 2  # then the centre begins between two pixels, by a rounding
    assert apart.max() <= (1 if odd else 0)
    assert np.count_nonzero(apart) < 0.02 * apart.size


@pytest.mark.parametrize(("view", "share"), [(VIEW, 0.3), (distillation_view, 0.1)])
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
