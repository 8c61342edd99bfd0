"""Alter files in every way; watch the time, memory and files that reading them takes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.samples import InputError

SECONDS = 10  # for one file
MEMORY = 2 * 2**30  # bytes

# What a hostile hand would write.
TOKENS = [
    *(b"../", b"/etc/passwd", b"\0", b"\xff\xfe", b"\r", b"\n", b",", b'"', b"'", b": ", b"- "),
    *(
        b"[" * 500,
        b"{" * 500,
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"null",
        b"true",
        b"0x7fffffff",
    ),
    *(b"&a ", b"*a ", b"<<: ", b"!!python/object/apply:os.system ", b"!!binary ", b"--help", b"%"),
    *(b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80", b"F64", b"\xf0\x9f\x92\xa9"),
]
PIECES = st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(TOKENS))
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),  # where
        st.sampled_from(["overwrite", "insert", "delete", "repeat", "cut"]),
        PIECES,
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=5,
)


def changed(content: bytes, changes: list[tuple]) -> bytes:
    """Apply changes one after another."""
    for where, kind, piece, length in changes:
        place = int(where * len(content))
        if kind == "overwrite":
            content = content[:place] + piece + content[place + len(piece) :]
        elif kind == "insert":
            content = content[:place] + piece + content[place:]
        elif kind == "delete":
            content = content[:place] + content[place + length :]
        elif kind == "repeat":
            content = content[: place + length] + content[place:]
        elif place % 4 == 0:  # most cuts leave nothing to look at
            content = content[:place]
    return content


class Hang(BaseException):
    """A file took too long."""


def out_of_time(*_) -> None:
    raise Hang


@contextmanager
def soon() -> Iterator[None]:
    """Raise Hang unless the block ends in time."""
    former = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def memory(kind: str) -> int:
    """Return this process's memory in bytes: VmRSS now, or VmHWM, the most since `watched`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{kind}:")[1].split()[0])


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Check memory, and that no file comes or goes in or beside `folder`, or where we are."""

    def files() -> list[Path]:
        here = [path for path in Path().iterdir() if path.name != ".hypothesis"]  # its own notes
        return sorted([*folder.rglob("*"), *folder.parent.iterdir(), *here])

    Path("/proc/self/clear_refs").write_text("5")  # begin VmHWM anew
    before, there = memory("VmRSS"), files()
    yield
    assert memory("VmHWM") - before < MEMORY
    assert files() == there


def fuzz(folder: Path, number: int, read: Callable[[list[tuple]], object]) -> None:
    """Call `read` with `number` lists of changes: it may only return, or raise InputError."""
    refused = []  # the texts alone: an error keeps all that its frames hold

    @settings(
        max_examples=number,
        deadline=timedelta(seconds=SECONDS),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CHANGES)
    def each(changes: list[tuple]) -> None:
        with soon():
            try:
                read(changes)
            except InputError as error:
                refused.append(str(error))
                assert all(str(fault).strip() for fault in error.args)

    with watched(folder):
        each()
    assert len(refused) > number / 20  # or the changes would not reach what is read


# Small files are written anew for each change.


def rewriting(path: Path, read: Callable[[], object]) -> Callable[[list[tuple]], object]:
    whole = path.read_bytes()

    def change(changes: list[tuple]) -> object:
        path.write_bytes(changed(whole, changes))
        return read()

    return change
