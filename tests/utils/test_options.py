"""Options: presets, what wins over what, every fault in one line."""

import shlex
from pathlib import Path

import pytest
import yaml

import benchmark
import calibrate
import export
import inference
import main
import predict
import pretrain
import report
import sweep
from data.samples import InputError
from sweeping.grid import read_grid
from tests.conftest import REPOSITORY
from training.preparation import check
from utils import presets
from utils.options import resolved
from utils.presets import parse

NAMES = ("main", "benchmark")
SWEEPS = (REPOSITORY / "configs" / "sweeps").iterdir()  # which tests/sweeping reads
PRESETS = sorted({*(REPOSITORY / "configs").rglob("*.yaml")} - {*SWEEPS})


def options_of(*argv: str):
    return parse(main.get_parser(), list(argv))


def test_the_defaults_are_the_published_protocol():
    options = options_of()
    assert options.dataset == "mvtec_loco"
    assert options.model == "glae"
    assert (options.train_steps, options.batch_size, options.image_size) == (65000, 1, [256])
    assert options.model_size is None


def test_a_datasets_preset_is_read_by_itself():
    preset = yaml.safe_load((REPOSITORY / "configs" / "demo.yaml").read_text())
    options = options_of("--dataset", "demo")
    assert options.model_size == preset["model_size"] == "small"
    assert options.train_steps == preset["train_steps"] < 1000


def test_a_config_wins_over_the_datasets_preset_and_the_command_line_over_both(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("dataset: demo\ntrain_steps: 7\nbatch_size: 3\n")
    options = options_of("--config", str(config), "--batch_size", "4")
    assert options.dataset == "demo"
    assert options.model_size == "small"  # from the preset of the dataset that the config names
    assert options.train_steps == 7
    assert options.batch_size == 4


@pytest.mark.parametrize("dataset", ["mvtec_loco", "mvtec_ad", "visa", "folder"])
@pytest.mark.parametrize(
    ("script", "command"), [(main, []), (benchmark, ["evaluation"])], ids=NAMES
)
def test_the_path_of_a_dataset_says_which_one_is_meant(script, command, dataset):
    line = [*command, f"--{dataset}_path", "somewhere"]
    assert parse(script.get_parser(), line).dataset == dataset
    assert parse(script.get_parser(), [*line, "--dataset", "demo"]).dataset == "demo"
    assert parse(script.get_parser(), [*line, "--dataset=demo"]).dataset == "demo"


def test_a_path_on_the_command_line_wins_over_the_dataset_of_a_config(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("dataset: mvtec_ad\nmvtec_ad_path: a\nvisa_path: b\n")
    line = ["--config", str(config)]
    assert options_of(*line).dataset == "mvtec_ad"
    assert options_of(*line, "--folder_path", "c").dataset == "folder"
    assert options_of(*line, "--folder_path", "c", "--visa_path", "d").dataset == "mvtec_ad"


def test_a_path_in_a_config_says_so_too_and_brings_the_datasets_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "CONFIGS", tmp_path)
    (tmp_path / "visa.yaml").write_text("train_steps: 17\n")
    (tmp_path / "mine.yaml").write_text("visa_path: somewhere\n")
    options = options_of("--config", str(tmp_path / "mine.yaml"))
    assert (options.dataset, options.train_steps) == ("visa", 17)


@pytest.mark.parametrize(("script", "command"), [(main, []), (benchmark, ["train"])], ids=NAMES)
def test_the_paths_of_several_datasets_need_a_word(script, command):
    line = [*command, "--visa_path", "a", "--folder_path", "b"]
    with pytest.raises(InputError, match=r"--visa_path and --folder_path .*--dataset") as caught:
        parse(script.get_parser(), line)
    assert len(caught.value.args) == 1
    assert parse(script.get_parser(), [*line, "--dataset", "visa"]).dataset == "visa"


def test_several_datasets_that_were_moved_are_all_scored():
    options = parse(inference.get_parser(), ["--visa_path", "a", "--folder_path", "b"])
    assert (options.dataset, options.visa_path, options.folder_path) == (None, Path("a"), Path("b"))


def test_without_any_path_the_defaults_stay():
    assert options_of().dataset == "mvtec_loco"
    assert parse(inference.get_parser(), []).dataset is None


def test_the_last_of_several_configs_wins(tmp_path):
    for name, steps in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"train_steps: {steps}\n")
    paths = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert options_of("--config", paths[0], "--config", paths[1]).train_steps == 2


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_shipped_preset_loads(path: Path):
    script = pretrain if path.stem.startswith("teacher") else main
    options = parse(script.get_parser(), ["--config", str(path)])
    for key, value in yaml.safe_load(path.read_text()).items():
        assert getattr(options, key) in (value, [value])


def test_the_resolved_options_repeat_the_run(tmp_path):
    first = options_of("--dataset", "demo", "--image_size", "64", "96", "--seed", "3")
    stored = tmp_path / "config.yaml"
    stored.write_text(yaml.safe_dump(resolved(first)))
    second = options_of("--config", str(stored))
    assert resolved(first) == resolved(second)
    assert second.image_size == [64, 96]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("train_stps: 3", "train_stps"),
        ("train_steps: many", "many"),
        ("model: resnet", "resnet"),
        ("- a\n- b", "option: value"),
        ("a: [", "YAML"),
    ],
)
def test_a_bad_preset_is_refused_with_its_name_and_the_fault(tmp_path, content, named):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        options_of("--config", str(path))
    assert "bad.yaml" in str(error.value)
    assert named in str(error.value)


def test_a_preset_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        options_of("--config", "nowhere.yaml")


def test_every_fault_is_reported_at_once():
    options = options_of("--train_steps", "-1", "--batch_size", "-1", "--image_size", "8")
    with pytest.raises(InputError) as error:
        check(options)
    for named in ("--train_steps", "--batch_size", "--image_size", "61"):
        assert named in str(error.value)


def test_options_are_not_abbreviated():
    with pytest.raises(InputError, match="--train_step"):
        options_of("--train_step", "5")


@pytest.mark.parametrize("script", [main, inference, pretrain, sweep])
def test_every_option_has_a_place_in_the_help(script):
    parser = script.get_parser()
    text = parser.format_help()
    assert all(option in text for option in parser._option_string_actions)
    assert "(default: None)" not in text


@pytest.mark.parametrize(
    "script",
    [main, inference, predict, calibrate, export, report, pretrain, benchmark, sweep],
    ids=lambda s: s.__name__,
)
def test_help_ends_with_examples_that_are_commands_of_the_script(script, monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # presets and sweeps are named from there
    lines = script.get_parser().format_help().rstrip().splitlines()
    examples = lines[lines.index("examples:") + 1 :]
    assert len(examples) >= 2
    for line in examples:
        assert line.startswith("  ")
        words = shlex.split(line)
        if words[0] == "./sweep.sh":
            words[:1] = ["python3", "sweep.py"]
        place = words.index(f"{script.__name__}.py")
        assert words[0] in ("python3", "torchrun")
        options = parse(script.get_parser(), words[place + 1 :])
        if script is sweep:
            read_grid(options, options.more, main.get_parser())  # which reads the rest of them


@pytest.mark.parametrize("line", ["memory_format: channels_last", "compile: inductor"])
def test_an_option_that_a_former_version_stored_is_ignored_and_told(tmp_path, line):
    config = tmp_path / "config.yaml"
    config.write_text(f"train_steps: 7\n{line}\n")
    with pytest.warns(UserWarning, match=r"config\.yaml: .* is no option any more"):
        options = options_of("--config", str(config))
    assert (options.train_steps, options.compile) == (7, "auto")


@pytest.mark.parametrize("script", [predict, calibrate], ids=lambda script: script.__name__)
def test_options_may_stand_anywhere_among_the_images(script):
    for line in (
        ["out", "a.png", "b.png", "--workers", "2"],
        ["out", "--workers", "2", "a.png", "b.png"],
        ["--workers", "2", "out", "a.png", "b.png"],
        ["out", "a.png", "--workers", "2", "b.png"],
    ):
        options = parse(script.get_parser(), line)
        assert (options.detector, options.images) == (Path("out"), ["a.png", "b.png"])
