"""What a .pt2 file may hold: looked at before PyTorch reads it. Nothing here needs torch."""

import json
import re
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from data.samples import require_file

# Records of a program or of a package, and the configurations that say how weights are stored.
# Others are pickles: sample inputs, objects, weights of earlier versions.
PLAIN = re.compile(
    r"\w[\w.-]*/(\.data/\w+|archive_format|archive_version|byteorder|extra/[\w.]+|models/model\.json"
    r"|data/(weights/weight_\d+|constants/tensor_\d+|aotinductor/model/\w[\w.-]*))"
)
CONFIG = re.compile(
    r"\w[\w.-]*/data/(weights/model_weights|constants/model_constants)_config\.json"
)


def check_archive(path: Path) -> None:
    """Raise OSError, ValueError or another for what export.py cannot have written as .pt2.

    Nothing in such a file is compressed, so no memory is asked for that it does not take itself,
    and nothing is pickled, beginning with the sample inputs.
    """
    require_file(path)
    with ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != ZIP_STORED for record in records):
            raise ValueError("it is compressed")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its parts are larger than it is")
        for record in records:
            name = record.filename
            if CONFIG.fullmatch(name):
                entries = json.loads(archive.read(record))["config"].values()
                if any(entry["use_pickle"] for entry in entries):
                    raise ValueError("it has weights that are pickled")
            elif not PLAIN.fullmatch(name) and record.file_size:
                raise ValueError(f"it holds {name}, which does not belong there")
