"""Join a cluster of Ray, or start Ray on this machine alone: what a command's --ray means."""

import ipaddress
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from data.samples import InputError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

ROOT = Path(__file__).parents[1]
AUTO, LOCAL = "auto", "local"
PATIENCE = 5.0  # seconds that a cluster may take to answer
START = "start one by `ray start --head`, or name --ray local for this machine alone"
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set where `ray job submit` has begun this process
# Without it Ray takes 127.0.0.1 for the machine's outer address, and listens there.
LOOPBACK_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
FRAME_HEAD, SETTINGS = 9, 4  # bytes, type of a frame of HTTP/2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}


def connect(address: str) -> ModuleType:
    """Return Ray, joined to the cluster that `address` (AUTO, LOCAL, host:port) means.

    LOCAL starts Ray here, on the loopback interface alone; it ends with this process. Workers
    import this project: from its folder where all nodes are this machine, else from a copy that
    Ray hands out. No environment variable of this process is passed on, so no credentials are.
    Raises InputError where Ray is not installed, or no cluster is there or answers.
    """
    where = address if address == LOCAL else find_cluster(address)
    alone = where == LOCAL or is_loopback(where)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to Ray's makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it calls usual things errors
    os.environ.update(LOOPBACK_ALONE if alone else {})
    try:
        import ray
    except ImportError as error:
        raise missing(error) from error
    if ray.is_initialized():
        return ray
    handler = signal.getsignal(signal.SIGTERM)
    own = QUIET if where == LOCAL else {k: v for k, v in QUIET.items() if k.startswith("log")}
    try:
        with silenced():
            ray.init(where, runtime_env=runtime_env(alone), **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--ray {address}: {where} cannot be joined: {reason}") from error
    signal.signal(signal.SIGTERM, handler)  # Ray's would end the process where it stands
    return ray


def beside_driver(ray: ModuleType, make: Callable) -> "ActorHandle":
    """Return an actor of a class that takes no core, on this node, with which all ends anyway.

    Where Ray kills it, for its memory maybe, it begins anew, and is asked again.
    """
    here = ray.get_runtime_context().get_node_id()
    where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    kept = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(num_cpus=0, scheduling_strategy=where, **kept)(make).remote()


@contextmanager
def silenced() -> Iterator[None]:
    """Keep from stderr what Ray's C++ code says, of its log level above all; Python tells why."""
    former = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(former, 2)
        os.close(former)


def missing(error: ImportError) -> InputError:
    """Return what to raise where Ray, or what a part of it needs, is not installed."""
    return InputError(f"--ray needs {error.name}: pip install -r requirements-ray.txt")


def find_cluster(address: str) -> str:
    """Return the host:port of a cluster that answers; AUTO is RAY_ADDRESS, or this machine's own.

    Raises InputError for none.
    """
    found = address
    if address == AUTO:
        folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray")
        file = folder / "ray_current_cluster"  # written by `ray start`
        own = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        found = os.environ.get("RAY_ADDRESS") or own
        if not found:
            raise InputError(f"--ray auto: no cluster of Ray is found here: {START}")
    host, _, port = found.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise InputError(
            f"--ray {address}: {found!r} is no host:port of a cluster; from outside of one, "
            "give the command to `ray job submit`"
        )
    if not is_there(found):
        raise InputError(f"--ray {address}: no cluster answers at {found}: {START}")
    return found


def is_there(where: str) -> bool:
    """Tell whether a server of gRPC, as Ray's is, answers at a host:port within PATIENCE.

    Ray itself would try for minutes. Source: RFC 9113, section 3.4: each side begins with SETTINGS.
    """
    host, _, port = where.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return True  # what it says is for Ray to read
            connection.sendall(PREFACE)
            head = connection.recv(FRAME_HEAD, socket.MSG_WAITALL)
    except (OSError, OverflowError):
        return False
    return len(head) == FRAME_HEAD and head[3] == SETTINGS


def is_loopback(where: str) -> bool:
    """Tell whether a cluster at this host:port is on this machine alone."""
    host = where.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def runtime_env(alone: bool) -> dict:
    """Return from where workers import this project; {} where a submitted job has settled it.

    The copy for other machines holds the packages, the scripts and their presets, and nothing that
    a user has put beside them.
    """
    job = json.loads(os.environ.get(JOB) or "{}")
    if (job.get("runtime_env") or {}).get("working_dir"):
        return {}
    if alone:
        return {"env_vars": {"PYTHONPATH": str(ROOT)}}
    packages = [file.parent.name for file in ROOT.glob("*/__init__.py")]
    kept = sorted({".", *packages, "configs", "*.py"} - {"tests"})  # . is the folder itself
    return {"working_dir": str(ROOT), "excludes": ["/*", *(f"!/{name}" for name in kept)]}
