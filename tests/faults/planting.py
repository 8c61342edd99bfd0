"""A pickle that leaves a trace when its code is run."""

import os
from pathlib import Path


class Planting:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
