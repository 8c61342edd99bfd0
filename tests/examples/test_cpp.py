"""The C++ program, built as its page says: it says what the Python runtime says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deployment.runtimes import load_exported
from tests.conftest import REPOSITORY
from tests.deployment.conftest import run_export
from tests.deployment.test_runtimes import altered

SOURCE = REPOSITORY / "examples" / "cpp"
ONNXRUNTIME = Path(os.environ.get("ONNXRUNTIME_ROOT", Path(sys.prefix) / "onnxruntime"))
MISSING = [tool for tool in ("cmake", "c++") if not shutil.which(tool)]
MISSING += [] if ONNXRUNTIME.is_dir() else [f"{ONNXRUNTIME} (examples/cpp/onnxruntime.sh)"]
MISSING += [] if Path("/usr/include/stb/stb_image.h").is_file() else ["libstb-dev"]
COMMANDS = re.search(r"```sh\n(.*)\n(.*)\n```", (SOURCE / "README.md").read_text()).groups()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def coloured(height: int, width: int) -> Image.Image:
    """Draw colours of which none is another, and no axis is."""
    ramp = np.linspace(0, 255, width)[None, :, None] * (1, 0.6, 0.2)
    noise = np.random.default_rng(height).normal(0, 20, (height, width, 3))
    image = (ramp + noise).clip(0, 255).astype(np.uint8)
    image[: height // 3, width // 2 :, 0] = 255
    return Image.fromarray(image)


@pytest.fixture(scope="module")
def home(alone, exported, tmp_path_factory) -> Path:
    """The folder of a reader who has a detector and two pictures, and has built the program."""
    home = tmp_path_factory.mktemp("cpp") / "example"
    shutil.copytree(SOURCE, home, ignore=shutil.ignore_patterns("build", "onnxruntime"))
    (home / "onnxruntime").symlink_to(ONNXRUNTIME)
    (home / "detector.onnx").symlink_to(exported)
    assert run_export(alone.folder, "--out", home, "--without_resize") == 0
    coloured(90, 133).save(home / "new.png")
    coloured(201, 64).save(home / "other.png")
    strict = os.environ | {"CXXFLAGS": "-Wall -Wextra -Werror"}
    done = shell(COMMANDS[0], home, env=strict)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def shell(command: str, home: Path, **settings) -> subprocess.CompletedProcess:
    line = ["bash", "-c", command]
    return subprocess.run(
        line, cwd=home, capture_output=True, text=True, check=False, timeout=300, **settings
    )


def check_rows(home: Path, detector: str, done: subprocess.CompletedProcess, names: list[str]):
    """Compare what was printed of pictures with what the Python runtime says of them."""
    assert (done.returncode, done.stderr) == (0, "")
    exported = load_exported(home / detector, threads=1)
    head, *rows = done.stdout.splitlines()
    assert head.split()[:4] == ["verdict", "score", "p", "threshold"]
    assert [row.split()[-1] for row in rows] == names
    for row, name in zip(rows, names, strict=True):
        verdict, score, p_value, threshold, place, *_ = row.split()
        expected = exported.predict(home / name)
        left, top = map(int, place.split(","))
        assert verdict == expected.verdict
        assert float(score) == pytest.approx(expected.score, rel=1e-5)
        assert float(p_value) == pytest.approx(expected.p_value, abs=5e-4)
        assert float(threshold) == pytest.approx(exported.description.threshold, rel=1e-3)
        largest = expected.anomaly_map.max()
        assert expected.anomaly_map[top, left] == pytest.approx(largest, rel=1e-4)


def test_pictures_of_two_sizes_get_the_python_runtimes_scores(home):
    done = shell(COMMANDS[1], home)
    check_rows(home, "detector.onnx", done, ["new.png", "other.png"])


def test_grey_palette_and_transparent_pictures_are_read_as_by_python(home):
    picture = coloured(90, 133)
    picture.convert("L").save(home / "grey.png")
    picture.quantize(32).save(home / "palette.png")
    alpha = Image.linear_gradient("L").resize(picture.size)
    picture.putalpha(alpha)
    picture.save(home / "transparent.png")
    names = ["grey.png", "palette.png", "transparent.png"]
    done = shell(f"build/score detector.onnx {' '.join(names)}", home)
    check_rows(home, "detector.onnx", done, names)


def test_a_detector_that_does_not_resize_takes_its_own_size_alone(home):
    coloured(64, 64).save(home / "own.png")
    done = shell("build/score detector_without_resize.onnx own.png", home)
    check_rows(home, "detector_without_resize.onnx", done, ["own.png"])
    done = shell("build/score detector_without_resize.onnx new.png", home)
    said = "error: new.png: the detector takes 64 x 64 pixels alone, width x height\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.fixture(scope="module")
def strange(home, exported) -> Path:
    """There are files, too, that are no detectors of ours, and pictures that are none, or deep."""
    altered(exported, home / "stranger.onnx", layout=None)
    altered(exported, home / "older.onnx", layout="1")
    altered(exported, home / "odd.onnx", **{"about.threshold": "high"})
    (home / "text.onnx").write_text("no model")
    (home / "cut.png").write_bytes((home / "new.png").read_bytes()[:3000])
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(home / "deep.png")
    return home


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "usage: score"),
        ("detector.onnx", "usage: score"),
        ("none.onnx new.png", "none.onnx: .*exist"),
        ("text.onnx new.png", "text.onnx: "),
        ("stranger.onnx new.png", "stranger.onnx: .*not written by .*export it again"),
        ("older.onnx new.png", "older.onnx: .*not written by"),
        ("odd.onnx new.png", "odd.onnx: .*not written by"),
        ("detector.onnx none.png", "none.png: no such file"),
        ("detector.onnx .", r"\.: no such file"),
        ("detector.onnx cut.png", "cut.png: no picture"),
        ("detector.onnx score.cpp", "score.cpp: no picture"),
        ("detector.onnx deep.png", "deep.png: it has 16 bits"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(strange, arguments, said):
    done = shell(f"build/score {arguments}", strange)
    assert done.returncode == 2
    assert re.match(f"error: {said}", done.stderr)
    assert done.stderr.count("\n") == 1
