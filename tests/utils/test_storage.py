"""A store gives back what was put into it, in a folder and in S3, and nothing leads out of it."""

import pickle
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data.samples import InputError
from tests.conftest import REPOSITORY
from tests.s3_server import SECRET, running
from utils.storage import LIKE, Store, check_url, is_url

pytest.importorskip("pyarrow", reason="URLs need requirements-ray.txt")
pytest.importorskip("moto", reason="the S3 server needs requirements-dev.txt")


class Folder:
    """A local folder, seen as `Bucket` sees a bucket."""

    def __init__(self, root: Path):
        self.root = root

    def put(self, key: str, content: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def contents(self) -> dict[str, bytes]:
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files}

    def is_sent(self, key: str) -> bool:
        return any(path.stat().st_size for path in (self.root / key).parent.glob(".*.part"))


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path):
    """What lies in a store, seen without it, and the store's URL."""
    if request.param == "file":
        root = tmp_path / "a b 100%"
        return Folder(root), f"file://{tmp_path}/a%20b 100%25/where"
    bucket = request.getfixturevalue("bucket")
    return bucket, f"s3://{bucket.name}/where"


@pytest.fixture
def bucket_url(bucket) -> str:
    return f"s3://{bucket.name}"


def test_what_is_put_into_a_store_is_there_and_comes_back(place, tmp_path):
    seen, url = place
    store = pickle.loads(pickle.dumps(Store(url)))  # as it reaches Ray's workers
    big = bytes(range(256)) * 2**15 + b"end"  # 8 MiB: more than one part or chunk
    (tmp_path / "big").write_bytes(big)
    store.write("new/ä b%20.gz", b"not decompressed")
    store.write("empty", b"")
    store.upload(tmp_path / "big", "new/deep/big")
    expected = {"new/ä b%20.gz": b"not decompressed", "empty": b"", "new/deep/big": big}
    assert seen.contents() == {f"where/{name}": content for name, content in expected.items()}
    store.download("new/deep/big", tmp_path / "back" / "big")
    assert (tmp_path / "back" / "big").read_bytes() == big
    assert {name: store.read(name) for name in expected} == expected
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["big"]


def test_a_store_lists_what_others_put_there(place):
    seen, url = place
    for key in ("where/b/2", "where/b/1", "where/bc/3", "where/a.png", "elsewhere/4"):
        seen.put(key, b"x" * len(key))
    seen.put("where/.hidden", b"")
    seen.put("where/b/.1.12.34.part", b"half")
    store, now = Store(f"{url}/"), time.time()
    sizes = {name: entry.size for name, entry in store.listing().items()}
    assert sizes == {"a.png": 11, "b/1": 9, "b/2": 9, "bc/3": 10}
    assert list(sizes) == sorted(sizes)
    assert list(store.listing("b")) == ["b/1", "b/2"]
    assert store.listing("none") == {}
    assert all(abs(entry.changed - now) < 60 for entry in store.listing().values())


def test_a_file_is_replaced_and_removed(place):
    seen, url = place
    store = Store(url)
    for content in (b"one", b"two, and longer", b"3"):
        store.write("a", content)
        assert seen.contents() == {"where/a": content}
    store.remove("a")
    store.remove("a")  # as a task that is tried again does
    assert (seen.contents(), store.listing()) == ({}, {})


def test_what_is_not_there_is_named_by_its_url(place, tmp_path):
    store = Store(place[1])
    for ask in (store.read, lambda name: store.download(name, tmp_path / "x")):
        with pytest.raises(FileNotFoundError, match="there is no such file") as raised:
            ask("none/a.png")
        assert raised.value.filename == f"{place[1]}/none/a.png"
    with pytest.raises(FileNotFoundError) as raised:  # a local one is not the store's
        store.upload(tmp_path / "absent", "a")
    assert raised.value.filename == str(tmp_path / "absent")
    assert list(tmp_path.glob("*x*")) == []


HOSTILE = ("../evil", "a/../../evil", "/etc/evil", "a//b", "a/./b", "..", "", "a\\..\\b", "C:evil")
HOSTILE += ("a\nb", "a\x1b[2J", "a/")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_by_every_method(place, tmp_path, name):
    store, file = Store(place[1]), tmp_path / "file"
    file.write_bytes(b"x")
    calls = [lambda: store.read(name), lambda: store.write(name, b""), lambda: store.remove(name)]
    calls += [lambda: store.upload(file, name), lambda: store.download(name, file)]
    for call in calls:
        with pytest.raises(InputError, match="leads elsewhere"):
            call()
    assert place[0].contents() == {}
    assert file.read_bytes() == b"x"


@pytest.mark.parametrize("key", ["where/x/../../evil", "where//abs", "where/a\\b", "where/C:x"])
def test_a_bucket_that_holds_a_hostile_name_is_not_listed(bucket, bucket_url, key):
    bucket.put("where/a.png", b"")
    bucket.put(key, b"x")
    with pytest.raises(InputError) as raised:
        Store(f"{bucket_url}/where").listing()
    assert repr(key.removeprefix("where/")) in str(raised.value)


def test_links_in_a_local_store_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"1")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to("nothing")
    assert list(Store(f"file://{tmp_path}").listing()) == ["a/f"]


WRONG = (
    "s3://key:{}@bucket/a",
    "s3://geheim@bucket/{}",
    "s3://bucket/a?secret_key={}",
    "s3://b/a#{}",
)
WRONG += ("https://key:{}@host/a", "s3:///{}", "s3://", "file://host/{}", "file:///", "{}://")
WRONG += ("abfss://:{}@account.dfs.core.windows.net/a", "s3://buck et/{}")


@pytest.mark.parametrize("url", WRONG)
def test_a_url_of_another_form_is_refused_without_a_word_of_it(url):
    faults = check_url(url.format(SECRET), "--storage")
    assert len(faults) == 1
    assert faults[0].startswith(f"--storage must be like {LIKE}")
    with pytest.raises(InputError) as raised:
        Store(url.format(SECRET))
    shown = "".join(traceback.format_exception(raised.value))
    assert "geheim" not in faults[0] + shown.replace(__file__, "")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("output/a", ", not a path"),
        ("https://key:secret@host/a", ": no other scheme is read"),
        ("s3://key:secret@bucket/a", ", without credentials or settings, which come from the env"),
        ("abfss://a:b@account/x", ", without credentials or settings"),
        ("gs://bucket/a?token=1", ", without credentials or settings"),
        *((f"{start}/x", ": its first part must be") for start in ("s3://", "gs://a b")),
        *((f"s3://{name}", ": its first part must be") for name in (".", "..", "-/x", "_a/x")),
        ("abfss://-@account/x", ": its first part must be"),
    ],
)
def test_a_url_that_is_none_is_told_why(url, said):
    (fault,) = check_url(url, "--storage")
    assert fault.startswith(f"--storage must be like {LIKE}{said}")


@pytest.mark.parametrize("part", ["..", "a/../b", "a//b", "%2e%2e", "a/%2E./b", "a%00", "a\x07b"])
@pytest.mark.parametrize("start", ["s3://bucket/", "file:///"])
def test_a_url_cannot_lead_out_of_its_folder(start, part):
    (fault,) = check_url(f"{start}x/{part}/y", "--storage")
    assert "no part of it may be empty, . or .." in fault


def test_urls_are_told_from_paths_and_right_ones_have_no_fault():
    right = ["s3://bucket", "s3://bucket/", "gs://bucket/a b/c@2x", "file:///data/ä%20b"]
    right += ["abfss://container@account.dfs.core.windows.net/x"]
    assert [check_url(url, "x") for url in right] == [[]] * len(right)
    assert all(map(is_url, right))
    assert not any(map(is_url, ["a/b", "/a", "C:\\a", "s3:/a", ""]))


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    store = Store("s3://no-such-bucket/where")
    for call in (store.listing, lambda: store.write("a", b"1")):
        with pytest.raises(InputError, match=r"^s3://no-such-bucket/where.*no such bucket: is its"):
            call()


class Denying(BaseHTTPRequestHandler):
    """Answers as AWS does where credentials are missing or wrong: 403 and a code."""

    code = "AccessDenied"

    def answer(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>of {SECRET}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_missing_or_wrong_credentials_are_one_line_without_them(monkeypatch, tmp_path, code):
    monkeypatch.setattr(Denying, "code", code)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Denying)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
        if code != "AccessDenied":
            monkeypatch.setenv(name, SECRET)
    store = Store("s3://bucket/where")
    for call in (store.listing, lambda: store.read("a"), lambda: store.write("a", b"1")):
        with pytest.raises(
            InputError, match=r"are credentials for it in the environment\?"
        ) as told:
            call()
        (line,) = told.value.args
        assert line.startswith("s3://bucket/where")
        assert "geheim" not in line + repr(store) + str(pickle.dumps(store))
    server.shutdown()


def test_a_server_that_is_gone_is_told_within_half_a_minute(tmp_path, monkeypatch):
    with running(tmp_path) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
    store, began = Store("s3://bucket/where"), time.monotonic()
    with pytest.raises(OSError, match="network connection: is its name right") as raised:
        store.listing()
    assert time.monotonic() - began < 30
    assert raised.value.filename == "s3://bucket/where"


def test_a_fault_of_this_machine_names_its_own_file(bucket, bucket_url, tmp_path):
    bucket.put("a", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="File exists|Not a directory") as raised:  # noqa: RUF043
        Store(bucket_url).download("a", tmp_path / "file" / "a")
    assert raised.value.filename == str(tmp_path / "file" / "a")


UPLOAD = "import sys; from pathlib import Path; from utils.storage import Store\n"
UPLOAD += "Store(sys.argv[1]).upload(Path(sys.argv[2]), 'big')"


def test_a_killed_upload_leaves_what_was_there(place, tmp_path):
    seen, url = place
    Store(url).write("big", b"old")
    with (tmp_path / "new").open("wb") as file:
        file.truncate(2**32)  # 4 GiB of nothing
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOAD, url, tmp_path / "new"], cwd=REPOSITORY
    )
    while not seen.is_sent("where/big"):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert Store(url).read("big") == b"old"
    assert list(Store(url).listing()) == ["big"]


def test_without_pyarrow_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.lib", None)
    store = Store("s3://bucket/a")
    for call in (store.listing, lambda: store.read("b"), lambda: store.write("b", b"")):
        with pytest.raises(
            InputError, match=r"needs pyarrow: pip install -r requirements-ray\.txt"
        ):
            call()
