"""Files of frames as a track names them: found and unchanged, before anything is trained (no torch)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.harness.protocol.tables import Frame
from deepnets_bench.system.files import reading

REMAKE = "`deepnets-bench track frame`"


def read_frame(frame: Frame, track: str) -> bytes:
    """The content of a frame's file; `track` is the name of the track that starts from it.

    Raises `BadInput` for a frame that is not made yet or whose file is missing, `CorruptFile` for another
    file than the track's digest says.
    """
    path = Path(frame.file)
    if not frame.digest:
        raise BadInput(
            f"Frame {path} of track '{track}' has no digest: make the frame with {REMAKE}, and put the "
            "digest that it prints into the track's file."
        )
    if not path.exists():
        raise BadInput(
            f"Track '{track}' starts from the frame {path}, which is not there; {REMAKE} remakes it."
        )
    with reading(path, "a frame"):
        data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != frame.digest:
        raise CorruptFile(
            f"Frame {path} is not the one of track '{track}': its SHA-256 begins with {found[:16]}, the "
            f"track says {frame.digest[:16]}."
        )
    return data
