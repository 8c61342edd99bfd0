"""Options, names and tables from a stranger: plain values that lead nowhere else, or one line."""

import json
import shutil
from pathlib import Path

import pytest

import main
import pretrain
from data.catalog import read_category
from data.samples import InputError
from tests.conftest import REPOSITORY, fill, make_mvtec_loco, make_product, make_visa
from tests.faults.running import command
from utils.presets import parse

SPLIT = "split_csv/1cls.csv"


# Options


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trian_steps: 3\nbatch_sise: 2", "--trian_steps: --train_steps?"),
        ("trian_steps: 3\nbatch_sise: 2", "--batch_sise: --batch_size?"),
        ("output_dir: [--help]", "output_dir"),
        ("help: true", "help"),
        ("config: other.yaml", "config"),
        ("seed: {a: 1}", "seed"),
        ("seed: [[1, 2], 3]", "seed"),
        ("seed: 2024-99-99", "seed"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("!!python/object/apply:os.mkdir [planted]", "YAML"),
        ("[" * 20_000, "YAML"),
        ("#" * 100_000, "at most 65536 bytes"),
        ("seed: " + "9" * 5000, "seed"),
        ("seed: off", "seed"),
        ("overwrite: true", "overwrite"),
        ('output_dir: "a\\0b"', "output_dir"),
    ],
    ids=lambda text: text[:20],
)
def test_a_hostile_preset_is_refused(tmp_path, content, said, outcome):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    code, out, errors = outcome(main, ["--config", path])
    assert (code, out) == (2, "")
    assert any(said in error and "mine.yaml" in error for error in errors)
    assert not Path("planted").exists()


def test_a_value_that_looks_like_an_option_is_a_value(tmp_path):
    (tmp_path / "mine.yaml").write_text("output_dir: --help\nsubdataset: --overwrite\n")
    options = parse(main.get_parser(), ["--config", str(tmp_path / "mine.yaml")])
    assert options.output_dir == Path("--help")
    assert options.subdataset == "--overwrite"
    assert not options.overwrite


def test_aliases_cannot_multiply(tmp_path):
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="aliases"):
        parse(main.get_parser(), ["--config", str(tmp_path / "laughs.yaml")])


@pytest.mark.parametrize("option", ["--trian_steps", "--weight", "--resum"])
@pytest.mark.parametrize("script", [main, pretrain])
def test_an_unknown_option_is_named_with_the_nearest(outcome, script, option):
    near = {"--trian_steps": "--train_steps", "--weight": "--weights", "--resum": "--resume"}
    code, _, errors = outcome(script, [option])
    assert code == 2
    if script is main or option != "--weight":
        assert f"there is no option {option}: {near[option]}?" in errors[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", 2**63),
        ("--train_steps", 10**20),
        ("--batch_size", 10**20),
        ("--workers", 100_000),
        ("--device", "cuda:99999999999999999999"),
    ],
)
def test_a_number_beyond_all_reason_is_refused(tmp_path, outcome, option, value):
    make_product(tmp_path / "bolt")
    line = ["--dataset", "folder", "--folder_path", tmp_path / "bolt", "--check", option, value]
    code, _, errors = outcome(main, [*line, "--output_dir", tmp_path / "out"])
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {option} ")


# Names


@pytest.mark.parametrize(
    "name", ["..", "../../else", "a/b", "/abs", ".hidden", "\0", "a\nb", "x" * 250]
)
def test_a_category_cannot_lie_outside_the_output(tmp_path, name):
    make_product(tmp_path / "bolt")
    with pytest.raises(InputError, match="--subdataset"):
        read_category("folder", tmp_path / "bolt", name, seed=0)


def test_a_folders_name_cannot_speak_to_the_terminal(world, tmp_path, run_command):
    shutil.copytree(world, tmp_path / "world")
    product = tmp_path / "world" / "bolt"
    shutil.rmtree(product / "ground_truth")
    for name in ("\x1b[31mred", "a\nready: b"):
        fill(product / "test" / name, 1)
        fill(product / "train" / name, 1)
    line = command(tmp_path / "world", tmp_path / "out", "--check")
    done = run_command([REPOSITORY / "main.py", *line], cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 3
    assert "2 files are passed over" in done.stderr
    assert "\x1b[31m" not in done.stdout + done.stderr


def test_an_object_of_a_csv_cannot_be_a_folder_above(tmp_path, outcome):
    root = tmp_path / "visa"
    make_visa(root, "pcb1")
    split = root / SPLIT
    split.write_text(split.read_text().replace("pcb1,", "../visa,"))
    code, _, errors = outcome(main, ["--dataset", "visa", "--visa_path", root, "--check"])
    assert code == 2
    assert "--subdataset" in errors[0]


def test_two_images_cannot_write_one_map(tmp_path):
    make_visa(tmp_path, "pcb1")
    shutil.copytree(tmp_path / "pcb1" / "Data" / "Images", tmp_path / "pcb1" / "More")
    with (tmp_path / SPLIT).open("a") as file:
        file.write("pcb1,test,normal,pcb1/More/Normal/004.JPG,\n")
    with pytest.raises(InputError, match="share a map"):
        read_category("visa", tmp_path, "pcb1", seed=0)


def test_a_name_too_long_for_its_map_is_told_before_training(tmp_path):
    make_product(tmp_path)
    image = tmp_path / "test" / "good" / "000.png"
    image.rename(image.with_name("x" * 251 + ".png"))
    with pytest.raises(InputError, match="name is too long"):
        read_category("folder", tmp_path, "bolt", seed=0)


# Tables


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pixel_value", True),
        ("pixel_value", 0),
        ("pixel_value", 1e3),
        ("pixel_value", 10**9),
        ("saturation_threshold", float("nan")),
        ("saturation_threshold", -1),
        ("saturation_threshold", "much"),
        ("relative_saturation", "yes"),
    ],
)
def test_a_table_of_defects_with_senseless_values_is_refused(tmp_path, key, value):
    make_mvtec_loco(tmp_path, "kit")
    path = tmp_path / "kit" / "defects_config.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{**entries[0], key: value}]))
    with pytest.raises(InputError, match=r"defects_config\.json"):
        read_category("mvtec_loco", tmp_path, "kit", seed=0)


@pytest.mark.parametrize("content", ["[" * 100_000, "[1" + "0" * 5000 + "]", "\udcff", " " * 2**21])
def test_a_table_of_defects_that_is_none_is_refused(tmp_path, content):
    make_mvtec_loco(tmp_path, "kit")
    path = tmp_path / "kit" / "defects_config.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"defects_config\.json"):
        read_category("mvtec_loco", tmp_path, "kit", seed=0)
