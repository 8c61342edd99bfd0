"""Presets and paths say what they say: text is no number, ~ is the home folder."""

from pathlib import Path

import pytest

import inference
import main
from data.samples import InputError
from utils.presets import parse


@pytest.mark.parametrize("name", ["010", "12_34", "2024-01-15", "1e3", "yes", "0x1F", "1:30"])
def test_a_category_is_called_as_it_is_written(tmp_path, name):
    (tmp_path / "mine.yaml").write_text(f"subdataset: {name}\nimage_size: [64, 0072]\nweights:\n")
    options = parse(main.get_parser(), ["--config", str(tmp_path / "mine.yaml")])
    assert options.subdataset == name
    assert options.image_size == [64, 72]
    assert options.weights is None


@pytest.mark.parametrize("text", ["~/data/plate", "'~/data/plate'"])
def test_a_tilde_is_the_home_folder_in_presets_and_behind_an_equals_sign(
    tmp_path, monkeypatch, text
):
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "mine.yaml").write_text(f"dataset: folder\nfolder_path: {text}\nweights: ~/a.pth\n")
    line = ["--config", str(tmp_path / "mine.yaml"), "--output_dir=~/out"]
    options = parse(main.get_parser(), line)
    assert options.folder_path == Path("/home/somebody/data/plate")
    assert options.output_dir == Path("/home/somebody/out")
    assert options.weights == Path("/home/somebody/a.pth")
    outputs = parse(inference.get_parser(), ["~/one", "two"]).outputs
    assert outputs == [Path("/home/somebody/one"), Path("two")]


def test_a_home_that_nobody_has_is_named(tmp_path):
    with pytest.raises(InputError, match="~nobody-at-all/out"):
        parse(main.get_parser(), ["--output_dir=~nobody-at-all/out"])


def test_a_preset_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3\n", encoding="utf-8-sig")
    assert parse(main.get_parser(), ["--config", str(tmp_path / "mine.yaml")]).seed == 3


@pytest.mark.parametrize("line", ["seed: [1, 2]", "subdataset: [a, b]", "model_size: [small]"])
def test_a_list_for_an_option_of_one_value_is_refused(tmp_path, line):
    path = tmp_path / "mine.yaml"
    path.write_text(line)
    with pytest.raises(InputError, match=f"mine.yaml: {line.partition(':')[0]} cannot"):
        parse(main.get_parser(), ["--config", str(path)])


def test_a_list_is_for_an_option_of_several_values_or_one_that_may_be_repeated(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("image_size: [64, 96]\nunlabelled: [a, b]\nlabelled: []\n")
    options = parse(main.get_parser(), ["--config", str(path)])
    assert (options.image_size, options.unlabelled) == ([64, 96], ["a", "b"])
