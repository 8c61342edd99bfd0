"""Images as no camera makes them: read as what they are, or named before anything is trained."""

import os
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import main
from data.images import decode
from data.samples import InputError
from tests.conftest import SIZE, make_mvtec_loco, make_product, picture
from tests.faults.running import command, run_of

PLACES = ["train/good/002.png", "test/good/001.png", "test/stain/000.png"]


def plain() -> Image.Image:
    return picture(np.random.default_rng(0), stain=False)


def truncated(path: Path) -> None:
    plain().save(path)
    path.write_bytes(path.read_bytes()[:500])


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("no image at all\n" * 50)


def animated(path: Path) -> None:
    frames = [plain(), plain().rotate(90)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def animated_png(path: Path) -> None:
    plain().save(path, save_all=True, append_images=[plain().rotate(90)])


def two_pages(path: Path) -> None:
    plain().save(path, "TIFF", save_all=True, append_images=[plain().rotate(90)])


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def bomb(path: Path, side: int = 20_000) -> None:
    """A few kilobytes that say they are 20,000 x 20,000 pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10**6), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def large(path: Path) -> None:
    bomb(path, 9_500)


def program(path: Path) -> None:
    """PostScript, which PIL would hand to another program."""
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 80\nshowpage\n")


UNUSABLE = {
    truncated: "truncated",
    zero_bytes: "no known format",
    text: "no known format",
    animated: "several images",
    animated_png: "several images",
    two_pages: "several images",
    large: "its 9500 x 9500 pixels are more than 89 million",
    bomb: "more than 89 million",
    program: "no known format",
}


@pytest.mark.parametrize("spoil", UNUSABLE, ids=lambda spoil: spoil.__name__)
def test_an_unusable_image_is_named_before_anything_is_computed(world, tmp_path, outcome, spoil):
    shutil.copytree(world, tmp_path / "world")
    victims = [tmp_path / "world" / "bolt" / place for place in PLACES]
    for victim in victims:
        victim.unlink()
        spoil(victim)
    for more in ([], ["--check"]):
        code, out, errors = outcome(main, command(tmp_path / "world", tmp_path / "out", *more))
        assert (code, out) == (2, "")
        assert len(errors) == 3  # all of them at once
        for victim, error in zip(victims, errors, strict=True):
            assert str(victim) in error
            assert UNUSABLE[spoil] in error
        assert not run_of(tmp_path / "out").losses_file.exists()


def test_a_pipe_named_like_an_image_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(InputError, match="no file"):
        decode(tmp_path / "image.png")


def mislabelled(path: Path) -> None:
    plain().save(path, "JPEG")


def cmyk(path: Path) -> None:
    plain().convert("CMYK").save(path, "JPEG")


def sixteen_bits(path: Path) -> None:
    cv2.imwrite(str(path), np.asarray(plain().convert("L")).astype(np.uint16) * 257)


def very_wide(path: Path) -> None:
    plain().resize((20_000, 40)).save(path)


@pytest.mark.slow
def test_odd_images_are_read_as_what_they_are(world, tmp_path, outcome):
    shutil.copytree(world, tmp_path / "world")
    product = tmp_path / "world" / "bolt"
    kinds = (mislabelled, cmyk, sixteen_bits, very_wide)
    for make in kinds:
        for place in ("train/good", "test/good"):
            make(product / place / f"{make.__name__}.png")
    line = command(tmp_path / "world", tmp_path / "out", "--train_steps", "2")
    code, _, errors = outcome(main, line)
    assert (code, errors) == (0, [])
    maps = run_of(tmp_path / "out").maps_folder / "test" / "good"
    for make in kinds:
        with Image.open(maps / f"{make.__name__}.tiff") as anomaly_map:
            assert anomaly_map.size == ((20_000, 40) if make is very_wide else SIZE)


def test_every_fault_of_images_and_masks_is_told_at_once(world, tmp_path, outcome):
    make_mvtec_loco(tmp_path / "loco", "kit")
    kit = tmp_path / "loco" / "kit"
    truth = kit / "ground_truth" / "logical_anomalies"
    (kit / "train" / "good" / "001.png").write_bytes(b"")
    (kit / "validation" / "good" / "000.png").write_bytes(b"")
    Image.new("L", (10, 10), 254).save(truth / "000" / "000.png")
    Image.new("L", SIZE, 77).save(truth / "001" / "000.png")
    (kit / "ground_truth" / "structural_anomalies" / "001" / "000.png").unlink()
    line = ["--mvtec_loco_path", tmp_path / "loco", "--subdataset", "kit", "--output_dir"]
    line += [tmp_path / "out", "--check", "--batch_size", "0", "--weights", tmp_path / "none.pth"]
    code, _, errors = outcome(main, line)
    assert code == 2
    for named in (
        "--batch_size must be at least 1",
        "none.pth is no file",
        "train/good/001.png: no known format",
        "validation/good/000.png: no known format",
        "logical_anomalies/000/000.png is 10 x 10 pixels",
        "logical_anomalies/001/000.png holds the value 77",
        "there is no mask for",
    ):
        assert sum(named in error for error in errors) == 1, (named, errors)
    assert len(errors) == 7


@pytest.mark.parametrize("shard", [False, True])
def test_natural_images_of_which_none_can_be_read_are_told_before_training(
    world, tmp_path, outcome, shard
):
    folder = tmp_path / "natural"
    folder.mkdir()
    zero_bytes(folder / "000.png")
    if shard:
        with tarfile.open(folder / "000.tar", "w") as tar:
            tar.add(folder / "000.png", "000.png")
        (folder / "000.png").unlink()
    line = command(world, tmp_path / "out", "--imagenet_train_path", str(folder))
    code, _, errors = outcome(main, line)
    assert code == 2
    assert len(errors) == 1
    assert "--imagenet_train_path: none of 1 images" in errors[0]
    assert not run_of(tmp_path / "out").losses_file.exists()


def test_one_damaged_shard_of_several_stops_nobody(world, tmp_path, outcome):
    """Training skips it, too."""
    folder = tmp_path / "natural"
    folder.mkdir()
    zero_bytes(folder / "000.tar")
    with tarfile.open(folder / "001.tar", "w") as tar:
        tar.add(world / "natural" / "000.png", "000.png")
    more = ("--imagenet_train_path", str(folder), "--check")
    code, _, errors = outcome(main, command(world, tmp_path / "out", *more))
    assert (code, errors) == (0, [])


def test_a_check_writes_nothing_and_says_what_there_is(world, tmp_path, outcome):
    make_product(tmp_path / "bolt")
    before = sorted(tmp_path.rglob("*"))
    code, out, errors = outcome(main, command(world, tmp_path / "out", "--check"))
    assert (code, errors) == (0, [])
    ready, recipe, _ = out.splitlines()
    assert ready == (
        "ready: bolt, 5 training, 1 validation (held out of the training images), "
        "4 test images (good 2, stain 2)"
    )
    assert recipe.startswith("recipe: learning_rate 0.0001, ")
    assert sorted(tmp_path.rglob("*")) == before
