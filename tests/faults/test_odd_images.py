"""Images as cameras store them, in whole runs: turned, of 12 bits, with masks saved as JPEG."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

import inference
import main
from data.samples import InputError
from tests.conftest import deep, make_product
from tests.faults.running import command, run_of
from utils.runs import Run
from utils.tensors import read_about, save_tensors


def line(product: Path, teacher: Path, output: Path, *more: str) -> list:
    """Return the options of a run on a product that is called bolt, too."""
    former = command(product.parent, output, "--train_steps", "2", *more)
    return [*former, "--folder_path", product, "--weights", teacher]


@pytest.fixture(scope="module")
def cameras(tmp_path_factory) -> Path:
    """The same images from cameras of 12 and of 16 bits."""
    folder = tmp_path_factory.mktemp("cameras")
    for bits in (12, 16):
        product = folder / str(bits) / "bolt"
        for n in range(5):
            deep(product / "train" / "good" / f"{n}.tif", bits, n)
        deep(product / "test" / "good" / "0.tif", bits, 10)
        deep(product / "test" / "stain" / "0.tif", bits, 20, stain=True)
    return folder


@pytest.fixture(scope="module")
def scored(cameras, teacher, tmp_path_factory) -> dict[int, Run]:
    """A finished run of each camera."""
    folder, runs = tmp_path_factory.mktemp("scored"), {}
    for bits in (12, 16):
        options = line(cameras / str(bits) / "bolt", teacher, folder / str(bits))
        main.main(main.get_parser().parse_args(list(map(str, options))))
        runs[bits] = run_of(folder / str(bits))
    return runs


def test_a_check_tells_a_depth_of_more_than_8_bits(cameras, teacher, tmp_path, outcome):
    options = line(cameras / "12" / "bolt", teacher, tmp_path, "--check")
    code, out, errors = outcome(main, options)
    assert (code, errors) == (0, [])
    assert out.splitlines()[0].endswith(" of 12 bits")


def test_values_of_12_bits_are_scored_like_the_same_images_in_16(scored):
    tensors = {bits: load_file(run.detector_file) for bits, run in scored.items()}
    assert {bits: found.pop("bits").item() for bits, found in tensors.items()} == {12: 12, 16: 16}
    assert all(torch.equal(tensors[12][name], tensors[16][name]) for name in tensors[16])
    maps = [tifffile.imread(r.maps_folder / "test" / "stain" / "0.tiff") for r in scored.values()]
    np.testing.assert_array_equal(*maps)


def test_beside_training_images_of_8_bits_16_bits_are_scored_alike(teacher, tmp_path, outcome):
    product, good = tmp_path / "bolt", tmp_path / "bolt" / "test" / "good"
    make_product(product)
    with Image.open(good / "000.png") as image:
        grey = np.asarray(image.convert("L"))
    Image.fromarray(grey).save(good / "shallow.png")
    Image.fromarray(grey * np.uint16(257)).save(good / "deep.png")
    assert outcome(main, line(product, teacher, tmp_path / "out"))[0] == 0
    maps = run_of(tmp_path / "out").maps_folder / "test" / "good"
    assert (maps / "deep.tiff").read_bytes() == (maps / "shallow.tiff").read_bytes()


def with_bits(run: Run, folder: Path, bits: int | None) -> Run:
    """Copy a run; write other bits into its detector, or none, as earlier versions did."""
    shutil.copytree(run.output, folder)
    path = run_of(folder).detector_file
    tensors, about = load_file(path), read_about(path)
    del tensors["bits"]
    if bits is not None:
        tensors["bits"] = torch.tensor(bits, dtype=torch.uint8)
    save_tensors(tensors, path, about)
    return run_of(folder)


def test_a_detector_of_an_earlier_version_scores_as_it_did(scored, tmp_path, outcome):
    """It scaled all values as if of 16 bits."""
    run = with_bits(scored[16], tmp_path / "out", None)
    former = (run.maps_folder / "test" / "stain" / "0.tiff").read_bytes()
    code, _, errors = outcome(inference, [run.output, "--workers", "1", "--precision", "fp32"])
    assert (code, errors) == (0, [])
    assert (run.maps_folder / "test" / "stain" / "0.tiff").read_bytes() == former
    assert run.load_detector(torch.device("cpu"))[0].bits.item() == 16


@pytest.mark.parametrize("bits", [0, 7, 255])
def test_a_detector_of_senseless_bits_is_refused(scored, tmp_path, bits):
    run = with_bits(scored[16], tmp_path / "out", bits)
    with pytest.raises(InputError, match=f"{bits} bits are no depth"):
        run.load_detector(torch.device("cpu"))


def turn(path: Path, quarter: int, exif: Image.Exif) -> None:
    """Store an image turned, and in its EXIF how it is to be shown."""
    with Image.open(path) as image:
        turned = image.rotate(90 * quarter, expand=True)
    turned.save(path, exif=exif)


@pytest.mark.parametrize("masks_too", [False, True])
def test_turned_images_are_measured_like_upright_ones(teacher, tmp_path, outcome, masks_too):
    exif = Image.Exif()
    exif[274] = 6  # to be shown a quarter clockwise: stored a quarter the other way
    metrics = []
    for name in ("upright", "turned"):
        product = tmp_path / name / "bolt"
        make_product(product)
        for path in product.rglob("*.png") if name == "turned" else ():
            if masks_too or "ground_truth" not in path.parts:
                turn(path, 1, exif)
        code, _, errors = outcome(main, line(product, teacher, tmp_path / name / "out"))
        assert (code, errors) == (0, [])
        metrics.append(json.loads(run_of(tmp_path / name / "out").metrics_file.read_text()))
    upright, turned = metrics
    assert turned["au_pro"] == upright["au_pro"]
    assert turned["glae"]["threshold"] == upright["glae"]["threshold"]


def test_masks_saved_as_jpeg_are_told_once_for_all_of_them(teacher, tmp_path, outcome, monkeypatch):
    product, told = tmp_path / "bolt", []
    make_product(product)
    for path in (product / "ground_truth" / "stain").iterdir():
        with Image.open(path) as mask:
            mask.rotate(7).save(path.with_suffix(".jpg"))
        path.unlink()
    monkeypatch.setattr(warnings, "warn", lambda text, **_: told.append(str(text)))
    code, _, errors = outcome(main, line(product, teacher, tmp_path / "out"))
    assert (code, errors) == (0, [])
    (text,) = [text for text in told if "background and defect" in text]
    assert "000.jpg and 1 more" in text
