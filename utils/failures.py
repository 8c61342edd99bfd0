"""What ends a run that its options and images are not to blame for, told without loading torch."""

import errno


class NotCaptured(RuntimeError):
    """A function's operations cannot be a CUDA graph on this machine."""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory was short, of a GPU or the computer."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    # of PyTorch and its libraries: its OutOfMemoryError says so, too
    phrases = ("can't allocate memory", "out of memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in phrases)
