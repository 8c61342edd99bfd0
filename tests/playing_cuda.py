"""As much of torch.cuda as can be played without a GPU: streams that order nothing."""

import torch


class Stream:
    """Notes what it was told to wait for."""

    def __init__(self, *_):
        self.waited: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited.append(other)


class NoContext:
    """A context manager that takes anything and does nothing."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def play_cuda(monkeypatch) -> None:
    """Let streams be made, entered and waited for; nothing runs anywhere else."""
    streams = [Stream()]

    class Entered:
        def __init__(self, stream: Stream):
            self.stream = stream

        def __enter__(self):
            streams.append(self.stream)

        def __exit__(self, *_):
            streams.pop()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: streams[-1])
    monkeypatch.setattr(torch.cuda, "stream", Entered)
