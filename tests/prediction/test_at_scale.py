"""predict.py --ray: the same rows as without, in parts that survive whatever dies."""

import os
import re
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import predict
from data.samples import InputError
from prediction import at_scale
from prediction.block_scoring import MOST_TRIES, BlockScorer, Reader
from prediction.blocks import MANIFEST
from tests.conftest import fill
from tests.prediction.conftest import rows_of
from utils import ray_cluster
from utils.presets import parse

pytest.importorskip("ray.data")
CPU = ["--device", "cpu", "--scorers", "1"]
COMMON = ["--ray", "local", "--precision", "fp32", "--block", "2", *CPU]


@pytest.fixture(scope="module")
def cluster(s3_server):
    """Ray on this machine, which also says that it has a GPU; the S3 server is known to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (s3_server.variables | ray_cluster.LOOPBACK_ALONE).items():
            patch.setenv(name, value)
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        import ray

        own = ray_cluster.runtime_env(alone=True)
        ray.init("local", num_cpus=3, num_gpus=1, runtime_env=own, **ray_cluster.QUIET)
        yield ray
        ray.shutdown()


@pytest.fixture
def score(outcome, alone, pictures):
    """Score over the cluster what is named, by default `pictures`, on its CPUs."""

    def call(*more: object, images: object = pictures, detector: object = alone.folder):
        return outcome(predict, [detector, images, *COMMON, *more])

    return call


@pytest.fixture
def expected(run_predict, alone, pictures, tmp_path, capfd) -> list[dict]:
    """The rows of predict.py without a cluster, which leaves out what is broken."""
    fill(pictures / "lot", 3)
    (pictures / "lot" / "001.png").write_bytes(b"broken")
    assert run_predict(alone.folder, pictures, "--csv", tmp_path / "alone.csv") == 2
    capfd.readouterr()
    return comparable(rows_of(tmp_path / "alone.csv"))


def comparable(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("milliseconds", "error")} for row in rows]


def as_text(row: dict) -> dict:
    """Return a row as CSV has it."""
    return {name: "" if value is None else str(value) for name, value in row.items()}


def parts_of(folder: Path) -> list[dict]:
    return [row for part in sorted(folder.glob("part-*.csv")) for row in rows_of(part)]


def check(rows: list[dict], expected: list[dict]) -> None:
    """Rows of parts are the expected ones, and one more, of the broken picture, with its reason."""
    assert comparable([row for row in rows if not row["error"]]) == expected
    (broken,) = [row for row in rows if row["error"]]
    assert broken["image"].endswith("lot/001.png") and "no known format" in broken["error"]
    assert broken["score"] in ("", None)


@pytest.mark.slow
def test_rows_are_those_of_one_machine_and_only_missing_parts_are_computed_again(
    cluster, score, expected, tmp_path, monkeypatch
):
    folder = tmp_path / "rows"
    code, out, (error,) = score("--csv", folder)
    assert (code, out) == (2, "") and "lot/001.png" in error and "no known format" in error
    check(parts_of(folder), expected)
    assert len([*folder.glob("part-*.csv")]) == 4  # of 7 pictures, 2 each
    before = {part: part.stat().st_mtime_ns for part in folder.iterdir()}
    (folder / "part-000001.csv").unlink()
    assert score("--csv", folder) == (2, "", [])
    changed = [part.name for part, then in before.items() if part.stat().st_mtime_ns != then]
    assert changed == ["part-000001.csv"]
    check(parts_of(folder), expected)
    monkeypatch.setattr(at_scale, "connect", None)  # with nothing left to do none is joined
    assert score("--csv", folder) == (2, "", [])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="rows of a GPU differ by rounding")
def test_a_bucket_gives_the_same_rows_in_parquet_where_others_decode(
    cluster, score, expected, pictures, bucket, tmp_path
):
    from pyarrow import BufferReader, parquet

    for path in pictures.rglob("*.*"):
        bucket.put(f"in/{path.relative_to(pictures)}", path.read_bytes())
    url = f"s3://{bucket.name}"
    code, _, (error,) = score("--device", "auto", "--parquet", f"{url}/out/", images=f"{url}/in")
    assert code == 2 and "lot/001.png" in error
    parts = {key: value for key, value in sorted(bucket.contents().items()) if "part-" in key}
    tables = [parquet.read_table(BufferReader(content)) for content in parts.values()]
    rows = [as_text(row) for table in tables for row in table.to_pylist()]
    shown = [
        row | {"image": row["image"].replace(str(pictures), f"{url}/in", 1)} for row in expected
    ]
    check(sorted(rows, key=lambda row: row["image"]), sorted(shown, key=lambda row: row["image"]))


@pytest.fixture
def many(alone, pictures, tmp_path):
    """Score `pictures` and 40 more on the cluster, by one actor."""
    fill(pictures / "more", 40)
    line = [alone.folder, pictures, *COMMON, "--csv", tmp_path / "rows"]
    return partial(predict.main, parse(predict.get_parser(), [*map(str, line)]))


def wait_for_part(folder: Path) -> None:
    while not parts_of(folder):
        time.sleep(0.05)


@pytest.mark.slow
def test_a_block_whose_actor_is_killed_is_scored_by_another(cluster, expected, many, tmp_path):
    run = threading.Thread(target=many)
    run.start()
    wait_for_part(tmp_path / "rows")
    killed = actors()
    for process in killed:
        os.kill(process, signal.SIGKILL)
    run.join(120)
    rows = parts_of(tmp_path / "rows")
    assert len(rows) == 47
    check([row for row in rows if "/more/" not in row["image"]], expected)
    assert len(killed) >= 2 and not killed & actors()


@pytest.mark.slow
def test_an_interrupt_is_answered_and_lets_what_has_begun_end(
    cluster, many, interruptible, tmp_path, capfd
):
    def interrupt():
        wait_for_part(tmp_path / "rows")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt, match=r" after \d+ of 44; ") as interrupted:
        many()
    done = int(str(interrupted.value).split()[1])
    assert 0 < done < 44 and len(parts_of(tmp_path / "rows")) == done
    begun, answer = capfd.readouterr().err.splitlines()[:2]
    assert begun == "pictures: 44, in blocks: 22, of which 0 were done before; Ray begins ..."
    assert answer == "interrupted: waiting for the blocks in flight; again stops at once"


def actors() -> set[int]:
    """Return the processes of this Ray that score, or count tries."""

    def parent(process: Path) -> int:
        return int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1])

    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = process.joinpath("cmdline").read_text()
            ours = "BlockScorer" in line or "Tries" in line
            if ours and parent(Path("/proc", str(parent(process)))) == os.getpid():
                found.add(int(process.name))
        except OSError:  # it has just ended
            continue
    return found


def test_a_block_that_kills_each_actor_ends_the_run_and_is_named():
    scorer = BlockScorer.__new__(BlockScorer)
    scorer.begin, scorer.reader = lambda number: MOST_TRIES + 1, Reader((64, 64), 8, ".")
    told = scorer({"number": 3, "items": '[["s3://b", "a.png", 1], ["s3://b", "z.png", 1]]'})
    assert re.search(r"actors died.* at s3://b/a\.png to s3://b/z\.png", told["failure"])


@pytest.mark.slow
def test_what_an_actor_meets_is_told_in_a_line(cluster, score, tmp_path):
    (tmp_path / "rows" / "part-000000.csv").mkdir(parents=True)
    code, _, (error,) = score("--csv", tmp_path / "rows")
    assert code == 1 and error == f"error: {tmp_path}/rows/part-000000.csv: Is a directory"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("another picture", "rows of other pictures:"),
        (("--block", "3"), "rows of another --block:"),
        (("--false_alarm_rate", "0.3"), "rows of another --false_alarm_rate:"),
        ("another detector", "rows of another detector:"),
        ("no manifest", f"holds files, and no {MANIFEST}"),
    ],
)
def test_parts_of_another_command_are_kept(
    score, fused, pictures, tmp_path, monkeypatch, change, fault
):
    monkeypatch.setattr(at_scale, "join", lambda options: None)
    monkeypatch.setattr(at_scale, "score_blocks", lambda *_: (at_scale.Tally(), []))
    folder, more, detector = tmp_path / "rows", (), {}
    score("--csv", folder)
    (folder / "part-000000.csv").write_text("kept")
    if change == "another picture":
        fill(pictures / "later", 1)
    elif change == "another detector":
        detector = {"detector": fused.folder}
    elif change == "no manifest":
        (folder / MANIFEST).unlink()
    else:
        more = change
    code, _, (error,) = score("--csv", folder, *more, **detector)
    assert code == 2 and fault in error and "name a" in error
    assert (folder / "part-000000.csv").read_text() == "kept"


def test_a_hostile_key_is_refused_before_anything_is_written(score, bucket):
    bucket.put("in/a.png", b"")
    bucket.put("in/../../evil.png", b"")
    url = f"s3://{bucket.name}"
    code, _, (error,) = score("--csv", f"{url}/out", images=f"{url}/in")
    assert code == 2 and "evil.png" in error
    assert not any(key.startswith("out") for key in bucket.contents())


def test_without_ray_a_line_says_what_to_install_and_nothing_is_written(
    score, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, (error,) = score("--csv", tmp_path / "rows")
    assert code == 2 and "pip install -r requirements-ray.txt" in error
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("resources", "device", "fault"),
    [
        ({"memory": 1.0}, "auto", "no node of the cluster has a core yet: wait for its workers"),
        ({"CPU": 2.0}, "cuda", "--device cuda: no node of the cluster has a GPU"),
    ],
)
def test_a_cluster_that_lacks_what_scoring_needs_is_refused(monkeypatch, resources, device, fault):
    joined = SimpleNamespace(cluster_resources=lambda: resources)
    monkeypatch.setattr(at_scale, "connect", lambda address: joined)
    with pytest.raises(InputError, match=fault):
        at_scale.join(SimpleNamespace(ray="auto", device=device, scorers=None))


@pytest.mark.parametrize("name", ["one.csv", "one.parquet"])
def test_a_folder_that_is_called_as_a_file_must_be_there(score, tmp_path, monkeypatch, name):
    monkeypatch.setattr(at_scale, "join", lambda options: None)
    monkeypatch.setattr(at_scale, "score_blocks", lambda *_: (at_scale.Tally(7, 0, 0), []))
    code, _, (error,) = score("--csv", tmp_path / name)
    assert code == 2 and "with --ray it is a folder" in error and not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert score("--csv", tmp_path / name)[0] == 0
    assert [file.name for file in (tmp_path / name).iterdir()] == [MANIFEST]


def test_few_broken_pictures_are_named_and_it_is_said_where_the_others_are(capsys):
    at_scale.tell_broken(["a.png: cut", "b.png: cut"], 5, Path("rows"))
    at_scale.tell_broken([], 5, Path("rows"))  # of parts that are of before
    named = ["error: a.png: cut", "error: b.png: cut", "... and 3 more: column error in rows"]
    former = "broken pictures: 5: column error in rows"
    assert capsys.readouterr().err.splitlines() == [*named, former]


def test_every_option_that_has_no_sense_on_a_cluster_is_named(score, tmp_path):
    wrong = ("--jsonl", "-", "--pictures", tmp_path / "seen", "--drift", "0.1", "--scorers", "0")
    _, _, errors = score(*wrong, "--csv", tmp_path / "rows", "--parquet", tmp_path / "more")
    for option in ("--jsonl", "--pictures", "--drift", "--scorers", "--csv or by --parquet"):
        assert any(option in error for error in errors)
    assert not (tmp_path / "rows").exists()


def test_without_a_cluster_urls_and_folders_are_refused_and_no_password_is_told(outcome, alone):
    line = [alone.folder, "s3://me:secret@bucket/in", "--csv", "rows/", "--block", "3"]
    code, _, errors = outcome(predict, line)
    assert code == 2 and len(errors) == 3
    assert "IMAGES: a URL needs --ray" in errors[0] and "--csv" in errors[1]
    assert not any("secret" in error for error in errors)
