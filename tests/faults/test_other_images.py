"""Images that are not those of the run: another product's, changed, added, gone, unreadable."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import inference
import main
from data.catalog import read_category
from data.fingerprints import digest_of, fingerprint
from tests.conftest import fill, make_product, picture
from tests.running_main import arguments, run_main
from utils.runs import Run
from utils.teachers import load_teacher


@pytest.fixture
def trained(tmp_path, teacher) -> tuple[Path, Path]:
    """Train a product called bolt; return its folder and the output."""
    make_product(tmp_path / "bolt")
    run_main(*arguments(tmp_path / "bolt", teacher, tmp_path / "out"))
    return tmp_path / "bolt", tmp_path / "out"


def run_of(output: Path) -> Run:
    return Run(output, "folder", "bolt")


def state(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def make_other_product(folder: Path) -> None:
    """Make a product whose files are called as bolt's."""
    make_product(folder)
    for path in sorted((folder / "train").rglob("*.png")):
        pixels = 255 - np.asarray(Image.open(path))
        Image.fromarray(pixels).save(path)


def test_a_run_stores_name_size_and_hash_of_what_it_learnt_from(trained):
    product, output = trained
    stored = json.loads(run_of(output).images_file.read_text())
    assert [len(stored[split]) for split in ("train", "validation")] == [5, 1]
    for name, (size, digest) in (stored["train"] | stored["validation"]).items():
        content = (product / name).read_bytes()
        assert size == len(content)
        assert digest == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert stored["test"] == ["good", "stain"]


def test_a_result_tells_its_teacher_and_its_product(trained, teacher):
    _, output = trained
    stored = json.loads(run_of(output).metrics_file.read_text())["glae"]
    weights, _ = load_teacher(teacher)
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in weights.state_dict().values()))
    assert stored["options"]["teacher"] == digest.hexdigest()[:8]
    assert stored["images"] == digest_of(run_of(output).read_images())


@pytest.mark.parametrize("finished", [True, False])
def test_a_resumed_run_names_the_images_that_changed(trained, teacher, outcome, finished):
    product, output = trained
    if not finished:
        run_of(output).detector_file.unlink()
    good = product / "train" / "good"
    (good / "000.png").unlink()
    for index in range(1, 3):
        picture(np.random.default_rng(50 + index), False).save(good / f"{index:03}.png")
    picture(np.random.default_rng(60), False).save(good / "900.png")
    before = state(output)
    code, out, errors = outcome(main, [*arguments(product, teacher, output), "--resume"])
    assert (code, out, len(errors)) == (2, "", 1)
    for text in ("000.png is gone", "001.png has another content", "002.png has", "and 1 more"):
        assert text in errors[0]
    assert "--overwrite" in errors[0]
    assert state(output) == before


def test_the_same_images_elsewhere_go_on_with_the_same_hold_out(
    trained, teacher, outcome, tmp_path
):
    product, output = trained
    run = run_of(output)
    stored = json.loads(run.images_file.read_text())
    other = next(name for name in stored["train"])  # as if a former version had drawn another
    held = next(iter(stored["validation"]))
    for a, b, name in (("train", "validation", other), ("validation", "train", held)):
        stored[b][name] = stored[a].pop(name)
    run.images_file.write_text(json.dumps(stored))
    run.detector_file.unlink()
    (tmp_path / "elsewhere").mkdir()
    product = Path(shutil.move(product, tmp_path / "elsewhere" / "bolt"))
    line = [*arguments(product, teacher, output), "--resume"]
    code, _, errors = outcome(main, line)
    assert (code, errors) == (0, [])
    assert json.loads(run.images_file.read_text()) == stored
    victim = product / other
    run.detector_file.unlink()
    victim.write_bytes(victim.read_bytes()[:-1])  # so it is the one that is calibrated with
    assert other in outcome(main, line)[2][0]


def test_another_product_of_the_same_name_is_not_scored(trained, outcome, tmp_path):
    _, output = trained
    make_other_product(tmp_path / "lines" / "bolt")
    before = state(output)
    line = [output, "--folder_path", tmp_path / "lines" / "bolt"]
    code, out, errors = outcome(inference, line)
    assert (code, out, len(errors)) == (2, "", 1)
    assert "does not hold the images" in errors[0]
    assert state(output) == before


def change_half(good: Path) -> None:
    for index in (1, 2, 3):
        picture(np.random.default_rng(50 + index), False).save(good / f"{index:03}.png")


def rename_all(good: Path) -> None:
    for path in good.iterdir():
        path.rename(good / f"lot_{path.name}")


def sort_into_lots(good: Path) -> None:
    paths = sorted(good.iterdir())
    (good / "lot0").mkdir()
    for path in paths:
        path.rename(good / "lot0" / path.name)
    fill(good / "lot1", 3)


def add_validation(good: Path) -> None:
    fill(good.parents[1] / "validation" / "good", 2)


@pytest.mark.parametrize(
    "change", [change_half, rename_all, sort_into_lots, add_validation], ids=lambda f: f.__name__
)
def test_a_product_is_known_again_by_a_part_of_its_images(trained, outcome, change):
    product, output = trained
    change(product / "train" / "good")
    code, _, errors = outcome(inference, [output, "--no_maps"])
    assert (code, errors) == (0, [])


def test_one_picture_in_common_makes_no_other_product_the_runs(trained, outcome, tmp_path):
    product, output = trained
    make_other_product(tmp_path / "lines" / "bolt")
    shared = "train/good/000.png"
    shutil.copy(product / shared, tmp_path / "lines" / "bolt" / shared)
    code, _, errors = outcome(inference, [output, "--folder_path", tmp_path / "lines" / "bolt"])
    assert code == 2
    assert "does not hold the images" in errors[0]


def test_what_is_added_is_named_by_itself(trained, teacher, outcome):
    product, output = trained
    fill(product / "validation" / "good", 1)
    fill(product / "train" / "good" / "lot1", 1)
    _, _, errors = outcome(main, [*arguments(product, teacher, output), "--resume"])
    assert "train/good/lot1/000.png is new, validation/good/000.png is new: undo that" in errors[0]


def test_images_of_a_run_that_never_began_bind_nobody(trained, teacher, outcome):
    product, output = trained
    run = run_of(output)
    run.detector_file.unlink()
    run.checkpoint_file.unlink()
    change_half(product / "train" / "good")
    code, _, errors = outcome(main, [*arguments(product, teacher, output), "--resume"])
    assert (code, errors) == (0, [])
    assert run.read_images() == fingerprint(read_category("folder", product, None, seed=0), 1)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"train": {}}', '{"train": {"a": 1}, "validation": {}, "test": []}']
)
def test_damaged_fingerprints_are_named(trained, outcome, content):
    _, output = trained
    run_of(output).images_file.write_text(content)
    code, _, errors = outcome(inference, [output, "--no_maps"])
    assert code == 2
    assert "images.json is damaged" in errors[0]


def test_maps_of_images_that_are_gone_go_too(trained, outcome, tmp_path):
    product, output = trained
    gone = product / "test" / "stain" / "001.png"
    gone.unlink()
    (product / "ground_truth" / "stain" / "001.png").unlink()
    shutil.rmtree(product / "test" / "good")
    assert outcome(inference, [output])[0] == 0
    maps = run_of(output).maps_folder
    assert sorted(maps.rglob("*")) == [
        maps / "test",
        maps / "test" / "stain",
        maps / "test" / "stain" / "000.tiff",
    ]
    line = [tmp_path / "none", "--maps_dir", output / "anomaly_maps", "--dataset", "folder"]
    code, _, errors = outcome(inference, [*line, "--folder_path", product])
    assert (code, errors) == (0, [])


@pytest.mark.parametrize("victim", ["test/stain/001.png", "ground_truth/stain/001.png"])
def test_one_unreadable_file_does_not_stop_the_others_from_being_scored(trained, outcome, victim):
    product, output = trained
    path = product / victim
    path.write_bytes(path.read_bytes()[:60])
    code, out, errors = outcome(inference, [output])
    assert code == 2
    assert len(errors) == 1
    assert str(path) in errors[0]
    assert "unreadable test images, left out: 1" in out
    metrics = json.loads(run_of(output).metrics_file.read_text())["glae"]
    assert metrics["counts"]["test"] == 3
    assert len(metrics["unreadable"]) == 1
    assert metrics["auroc_by_defect"]["stain"] is not None
    scored = tifffile.imread(run_of(output).maps_folder / "test" / "stain" / "000.tiff")
    assert scored.shape == (80, 96)
    kept = run_of(output).maps_folder / "test" / "stain" / "001.tiff"
    assert kept.exists() == victim.startswith("ground_truth")


def test_nothing_readable_at_all_is_an_error_that_names_everything(trained, outcome):
    product, output = trained
    before = run_of(output).metrics_file.read_bytes()
    for path in (product / "test").rglob("*.png"):
        path.write_bytes(b"")
    code, out, errors = outcome(inference, [output])
    assert (code, out, len(errors)) == (2, "", 4)
    assert run_of(output).metrics_file.read_bytes() == before
