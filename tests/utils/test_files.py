"""Writing files so that a crash never leaves half of one."""

import pytest
import torch
from safetensors.torch import load_file

from utils.files import written_aside
from utils.tensors import save_tensors


def test_views_and_transposes_are_saved_as_they_look(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    save_tensors({"t": whole.T, "part": whole[1:, 2:]}, tmp_path / "a.safetensors", {})
    stored = load_file(tmp_path / "a.safetensors")
    assert stored["t"].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert stored["part"].tolist() == [[6, 7], [10, 11]]


def test_a_file_takes_its_place_when_its_block_is_done(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with written_aside(path) as aside:
        aside.write_text("one")
        assert aside.parent == path.parent  # so that renaming is one step
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_the_old_file_survives_a_failure(tmp_path, fault):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(fault), written_aside(path) as aside:
        aside.write_text("half of the new")
        raise fault
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
