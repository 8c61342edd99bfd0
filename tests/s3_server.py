"""A real S3 server on this machine, which any process reaches, and a bucket of it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRET = "geheim/5tR0ng+key"  # must never be seen
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "AKIATESTER",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """A server's address; its log has a line for each request."""

    def __init__(self, process: subprocess.Popen, log: Path):
        self.process, self.log = process, log
        deadline = time.monotonic() + 60
        while not (found := re.search(r"Running on (http://127.0.0.1:\d+)", self.requests())):
            assert process.poll() is None and time.monotonic() < deadline, self.requests()
            time.sleep(0.05)
        self.variables = VARIABLES | {"AWS_ENDPOINT_URL": found[1]}

    def requests(self) -> str:
        return self.log.read_text()


class Bucket:
    """A bucket, seen by boto3."""

    def __init__(self, server: S3Server, name: str):
        import boto3

        self.server, self.name = server, name
        key = {"aws_access_key_id": VARIABLES["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": SECRET}
        address = server.variables["AWS_ENDPOINT_URL"]
        self.client = boto3.client("s3", "us-east-1", endpoint_url=address, **key)
        self.client.create_bucket(Bucket=name)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def contents(self) -> dict[str, bytes]:
        """Return all objects but those that stand for folders."""
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        keys = [entry["Key"] for entry in found if not entry["Key"].endswith("/")]
        get = self.client.get_object
        return {key: get(Bucket=self.name, Key=key)["Body"].read() for key in keys}

    def is_sent(self, key: str) -> bool:
        """Tell whether a second part of an object has come, which small ones have not."""
        return f'"PUT /{self.name}/{key}?partNumber=2' in self.server.requests()

    def fetched(self) -> list[str]:
        """Return the keys that were fetched, once for each time."""
        return re.findall(rf"GET /{self.name}/(\S+) HTTP", self.server.requests())


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Give a server, in a process of its own, which ends with the block."""
    log = folder / "s3.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ})
    try:
        yield S3Server(process, log)
    finally:
        process.kill()
        process.wait()
