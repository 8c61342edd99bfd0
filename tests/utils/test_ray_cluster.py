"""Which cluster of Ray is joined, and what it is told."""

import json
import re
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from data.samples import InputError
from tests.conftest import REPOSITORY
from utils import ray_cluster
from utils.ray_cluster import connect, find_cluster, is_loopback, runtime_env


@contextmanager
def server(reply: bytes):
    """Give the host:port of a server that answers so to whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(reply)
                while connection.recv(100):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No cluster is named, and none is on this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_cluster, "PATIENCE", 0.5)


def test_auto_is_what_the_environment_or_this_machine_names(monkeypatch, tmp_path):
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty SETTINGS frame
    with server(settings) as own, server(settings) as named:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(own)
        assert find_cluster("auto") == own
        monkeypatch.setenv("RAY_ADDRESS", named)
        assert find_cluster("auto") == named


def test_without_a_cluster_the_error_says_how_to_start_one():
    with pytest.raises(InputError, match=r"no cluster of Ray.*ray start --head.*--ray local"):
        connect("auto")


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.0 400 Bad request\r\n"])
def test_what_is_no_cluster_is_not_waited_for(reply):
    with server(reply) as address, pytest.raises(InputError, match=f"answers at {address}"):
        connect(address)


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "head:x"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(InputError, match=re.escape(f"{address!r} is no host:port")):
        connect(address)


def test_loopback_is_told_from_other_machines():
    assert is_loopback("127.0.0.1:6379") and is_loopback("localhost:1") and is_loopback("[::1]:1")
    assert not is_loopback("10.0.0.7:6379") and not is_loopback("head:6379")


def test_workers_elsewhere_get_the_project_and_nothing_that_lies_beside_it(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    shipped = runtime_env(alone=False)
    assert shipped["working_dir"] == str(REPOSITORY) and "geheim" not in json.dumps(shipped)
    pathspec = pytest.importorskip("ray._private.thirdparty.pathspec")
    left_out = pathspec.PathSpec.from_lines("gitwildmatch", shipped["excludes"]).match_file
    for name in (".", "predict.py", "utils", "models", "configs"):
        assert not left_out(name)
    for name in (".git", ".venv", "output", "my_product", "tests", "docs", "node_modules"):
        assert left_out(name)


def test_a_submitted_job_has_settled_where_the_project_is(monkeypatch):
    job = {"runtime_env": {"working_dir": "gcs://a.zip"}}
    monkeypatch.setenv(ray_cluster.JOB, json.dumps(job))
    assert runtime_env(alone=False) == runtime_env(alone=True) == {}
