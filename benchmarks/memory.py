"""How much memory this process has taken. Nothing here needs torch."""

from pathlib import Path


def peak_memory() -> int:
    """Return the most memory in bytes that this process had resident."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had before it started this one
        line = next(
            x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM")
        )
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
