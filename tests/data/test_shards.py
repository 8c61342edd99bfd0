"""Tar shards: the same images as in the files, in an order that any item is found in by itself."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import decode
from data.natural import NaturalImages, find_natural_images, hold_out_natural, load_batches
from data.samples import InputError
from data.shards import LANES, Member, Shards, list_members

SIZE = (8, 8)


def png(colour: int) -> bytes:
    """Return the file of a picture that its colour tells from all others."""
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (colour % 256, colour // 256, 0)).save(file, "PNG")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def make_shards(folder: Path, lengths: list[int]) -> list[Path]:
    """Write shards as webdataset does: an image and its class beside each other."""
    folder.mkdir(parents=True, exist_ok=True)
    colour, paths = 0, []
    for number, length in enumerate(lengths):
        paths.append(folder / f"train-{number:04}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for _ in range(length):
                add(tar, f"{colour:06}.png", png(colour))
                add(tar, f"{colour:06}.cls", b"7")
                colour += 1
    return paths


def colour_of(image: Image.Image) -> int:
    red, green, _ = image.getpixel((0, 0))
    return red + 256 * green


def drawn(shards: Shards, count: int, seed: int = 0) -> list[int]:
    """Return the colours of the stream's first images."""
    rng = np.random.default_rng(0)
    return [colour_of(shards.pick(i, 0, seed, rng).decode()) for i in range(count)]


def look(image: Image.Image, size, rng) -> torch.Tensor:
    return torch.tensor(colour_of(image))


def test_members_are_what_tarfile_reads(tmp_path):
    (path,) = make_shards(tmp_path, [5])
    members = list_members(path)
    assert [m.name for m in members] == [f"{i:06}.png" for i in range(5)]
    with tarfile.open(path) as tar:
        for member in members:
            with path.open("rb") as file:
                file.seek(member.offset)
                assert file.read(member.size) == tar.extractfile(member.name).read()
    assert [colour_of(m.decode()) for m in members] == list(range(5))


def test_an_image_in_a_shard_is_decoded_as_one_in_a_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 65536, (6, 5)).astype(np.uint16)
    Image.fromarray(noise).save(tmp_path / "deep.png")  # 16 bits
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "deep.png", "n0/deep.png")
    (member,) = list_members(tmp_path / "a.tar")
    assert np.array_equal(member.decode(), decode(tmp_path / "deep.png"))


def test_every_image_comes_once_before_any_comes_twice(tmp_path):
    shards = Shards(make_shards(tmp_path, [6] * LANES * 2))
    colours = drawn(shards, 2 * 6 * LANES * 2)
    epoch = 6 * LANES * 2
    assert sorted(colours[:epoch]) == list(range(epoch)) == sorted(colours[epoch:])
    assert colours[:epoch] != colours[epoch:]


def test_a_lane_reads_a_shard_in_one_stretch(tmp_path):
    colours = drawn(Shards(make_shards(tmp_path, [6] * LANES * 2)), 6 * LANES)
    for lane in range(LANES):
        first, *others = colours[lane::LANES]
        shard, place = divmod(first, 6)
        assert others == [6 * shard + (place + i) % 6 for i in range(1, 6)]
    assert len({colour // 6 for colour in colours}) == LANES


@pytest.mark.parametrize("lengths", [[3, 5, 9, 1], [9, 1, 2]])
def test_shards_of_any_length_are_used_to_the_last_image(tmp_path, lengths):
    colours = drawn(Shards(make_shards(tmp_path, lengths)), 3000)
    assert set(colours) == set(range(sum(lengths)))


@pytest.mark.parametrize("count", [1, 3, 15, 16, 17])
def test_a_batch_is_of_different_images(tmp_path, count):
    colours = drawn(Shards(make_shards(tmp_path, [40] * count)), 16 * 200)
    different = [len(set(colours[i : i + 16])) for i in range(0, len(colours), 16)]
    assert np.mean(different) > 15.5


def test_another_seed_gives_another_order(tmp_path):
    shards = Shards(make_shards(tmp_path, [4] * 30))
    assert drawn(shards, 100, seed=0) != drawn(shards, 100, seed=1)


def test_neither_workers_nor_parts_nor_resuming_change_the_stream(tmp_path):
    source = Shards(make_shards(tmp_path, [3, 5, 2, 4, 6]))

    def images() -> NaturalImages:
        return NaturalImages(source, SIZE, 4, look)

    whole = torch.stack(list(load_batches(images(), 4, range(12), workers=0)))
    assert len(whole.unique()) > 10
    shared = torch.stack(list(load_batches(images(), 4, range(12), workers=3)))
    later = torch.stack(list(load_batches(images(), 4, range(7, 12), workers=1)))
    half = torch.stack(list(load_batches(images(), 4, range(12), 0, slice(2, 4))))
    assert torch.equal(whole, shared)
    assert torch.equal(whole[7:], later)
    assert torch.equal(whole[:, 2:], half)


def test_a_folder_of_shards_is_found_at_any_depth(tmp_path):
    make_shards(tmp_path / "a" / "b", [2, 2])
    assert isinstance(find_natural_images(tmp_path), Shards)
    assert len(find_natural_images(tmp_path).members()) == 4


def test_one_shard_may_be_named_itself(tmp_path):
    (path,) = make_shards(tmp_path, [2])
    assert find_natural_images(path).shards == [path]


@pytest.mark.parametrize(("count", "number"), [(4, 1), (60, 3)])
def test_images_of_a_twentieth_of_the_shards_are_held_out(tmp_path, count, number):
    rest, held_out = hold_out_natural(Shards(make_shards(tmp_path, [3] * count)), seed=0)
    held = {member.shard for member in held_out}
    assert len(held) == number
    assert len(rest.shards) == count - number
    assert held.isdisjoint(rest.shards)
    assert len(held_out) == 3 * number


@pytest.mark.filterwarnings("ignore:skipped")
def test_bad_shards_may_be_anywhere(tmp_path):
    paths = make_shards(tmp_path, [3] * 40)
    for path in (paths[0], paths[7], paths[39]):
        cut(path)
    for seed in range(40):
        rest, held_out = hold_out_natural(find_natural_images(tmp_path), seed)
        assert rest.length == 3
        assert 3 <= len(held_out) <= 6
        assert len(rest.members()) + len(held_out) == 37 * 3


def test_images_beside_shards_are_refused(tmp_path):
    make_shards(tmp_path, [3] * 2)
    (tmp_path / "logo.png").write_bytes(png(1))
    with pytest.raises(InputError, match=r"both images and \.tar shards"):
        find_natural_images(tmp_path)


def test_one_shard_cannot_be_split(tmp_path):
    with pytest.raises(InputError, match="only shard"):
        hold_out_natural(Shards(make_shards(tmp_path, [3])), seed=0)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def zipped(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "a.png", png(1))


def of_text(path: Path) -> None:
    path.write_text("no archive\n" * 1000)


def without_images(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        add(tar, "a.cls", b"1")


@pytest.mark.parametrize("spoil", [cut, zipped, of_text, without_images, Path.unlink])
def test_a_bad_shard_is_named(tmp_path, spoil):
    (path,) = make_shards(tmp_path, [5])
    spoil(path)
    with pytest.raises(InputError, match=r"shard .*train-0000\.tar") as caught:
        list_members(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_bad_shard_is_replaced_by_others_and_counted_once(tmp_path):
    paths = make_shards(tmp_path, [3] * 8)
    cut(paths[3])
    images = NaturalImages(Shards(paths), SIZE, 0, look, allowed=0.01)
    colours = [int(images[i]) for i in range(300)]
    assert set(colours) == set(range(24)) - {9, 10, 11}
    assert images.unreadable.number == 1
    again = NaturalImages(Shards(paths), SIZE, 0, look)  # which meets it at another item
    assert [int(again[i]) for i in reversed(range(300))] == colours[::-1]


@pytest.mark.filterwarnings("ignore:skipped")
def test_shards_that_all_went_bad_end_the_stream(tmp_path):
    paths = make_shards(tmp_path, [3] * 4)
    images = NaturalImages(Shards(paths), SIZE, 0, look)
    list_members.cache_clear()
    for path in paths:
        cut(path)
    with pytest.raises(InputError, match="none of 4 shards"):
        images[0]


def test_a_bad_image_in_a_shard_is_named_with_its_shard(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "broken.jpg", b"\xff\xd8 cut short")
    (member,) = list_members(tmp_path / "a.tar")
    with pytest.raises(InputError, match=r"a\.tar/broken\.jpg"):
        member.decode()
    with pytest.raises(InputError, match="broken") as caught:
        member.decode()
    assert "BytesIO" not in str(caught.value)
    gone = Member(tmp_path / "gone.tar", "a.png", 0, 10)
    with pytest.raises(InputError, match=r"gone\.tar"):
        gone.decode()
