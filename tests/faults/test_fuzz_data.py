"""Thousands of altered images, maps, shards and tables: read, or refused in one line."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import main
from data.catalog import DATASETS, survey_category
from data.images import decode, image_size
from data.masks import regions
from data.mvtec import read_defects_config
from data.samples import InputError, Sample
from data.shards import Shards, list_members
from evaluation.maps import read_map
from models.pdn import pdn_small
from tests.conftest import SIZE, make_mvtec_loco, make_product, make_visa, picture, stain_mask
from tests.faults.fuzzing import CHANGES, changed, fuzz, rewriting
from tests.faults.running import command
from utils.presets import parse
from utils.runs import Run

pytestmark = pytest.mark.slow
FORMATS = {  # how PIL saves, how many inputs
    "png": ({}, 2000),
    "jpeg": ({"quality": 90}, 1500),
    "jpeg progressive": ({"progressive": True}, 500),
    "tiff": ({}, 1500),
    "tiff packed": ({"compression": "tiff_lzw"}, 500),
    "webp": ({}, 500),
    "bmp": ({}, 500),
    "ppm": ({}, 500),
    "gif": ({}, 500),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_images(tmp_path, kind):
    more, number = FORMATS[kind]
    path = tmp_path / f"image.{kind.split()[0]}"
    image = picture(np.random.default_rng(0), stain=False).resize((24, 20))
    image.save(path, **more)

    def read() -> None:
        decoded = decode(path)
        assert decoded.mode == "RGB"
        assert image_size(path) == (decoded.height, decoded.width)

    fuzz(tmp_path, number, rewriting(path, read))


def test_masks(tmp_path):
    path = tmp_path / "mask.png"
    stain_mask().save(path)
    entry = {"pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
    fuzz(tmp_path, 1000, rewriting(path, lambda: regions((path,), SIZE[::-1], [entry])))


def test_anomaly_maps(tmp_path):
    image = tmp_path / "image.png"
    Image.new("L", (24, 20)).save(image)
    path = tmp_path / "test" / "good" / "image.tiff"
    path.parent.mkdir(parents=True)
    tifffile.imwrite(path, np.random.default_rng(0).random((20, 24), "float32"))
    sample = Sample(image, 0, "good")
    fuzz(tmp_path, 1500, rewriting(path, lambda: read_map(tmp_path, sample)))


def test_shards(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            tar.add(tmp_path / "a.png", name)

    def read() -> None:
        list_members.cache_clear()
        for member in Shards([path]).members():
            member.decode()

    fuzz(tmp_path, 1000, rewriting(path, read))


@pytest.mark.filterwarnings("ignore")
def test_presets(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("# a product\ndataset: demo\nimage_size: [64, 96]\ntrain_steps: 5\nseed: 3\n")
    parser = main.get_parser()
    fuzz(tmp_path, 2000, rewriting(path, lambda: parse(parser, ["--config", str(path)])))


def test_tables_of_defects(tmp_path):
    make_mvtec_loco(tmp_path, "kit")
    path = tmp_path / "kit" / "defects_config.json"
    fuzz(tmp_path, 2500, rewriting(path, lambda: read_defects_config(path.parent)))


def test_splits(tmp_path):
    make_visa(tmp_path / "visa", "pcb1")
    (tmp_path / "passwd.png").write_bytes(b"")
    path = tmp_path / "visa" / "split_csv" / "1cls.csv"

    def read() -> None:
        for name in DATASETS["visa"].find(tmp_path / "visa"):
            category = survey_category("visa", tmp_path / "visa", name, seed=0)
            outside = [s for s in category.samples if "passwd" in s.image.name]
            assert bool(outside) <= bool(category.faults)
            assert Run(tmp_path, "visa", name).folder.parent == tmp_path / "trainings" / "visa"
            if category.faults:
                raise InputError(*category.faults)

    fuzz(tmp_path, 2500, rewriting(path, read))


# What passes the check must pass the run.


def test_a_product_that_passes_the_check_is_trained(tmp_path, outcome):
    """Any file of it altered: refused with code 2, or everything works."""
    make_product(tmp_path / "bolt")
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), tmp_path / "teacher.pth")
    files = sorted(path for path in (tmp_path / "bolt").rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    codes = []

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(files), CHANGES)
    def each(path: Path, changes: list[tuple]) -> None:
        path.write_bytes(changed(whole[path], changes))
        line = command(tmp_path, tmp_path / "out", "--train_steps", "1")
        try:
            code, _, errors = outcome(main, [*line, "--check"])
            assert code == (2 if errors else 0)
            codes.append(code)
            if code == 0:
                code, _, errors = outcome(main, line)
                assert (code, errors) == (0, [])
        finally:
            path.write_bytes(whole[path])
            shutil.rmtree(tmp_path / "out", ignore_errors=True)

    each()
    assert {0, 2} == set(codes)
