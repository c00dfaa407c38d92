"""Accuracies of single architectures: the file beside the rows that holds those of one run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.leaderboard.results import safe_text
from deepnets_bench.system.files import reading, write_atomically
from deepnets_bench.system.locks import locked, writable

SCORE_COLUMNS = ("split", "index", "accuracy")


def write_scores(folder: str | Path, stem: str, scores: Mapping[str, Mapping[int, float]]) -> str:
    """Write per-architecture accuracies {split: {index: accuracy}} of one job; returns the file's name.

    `stem` names the job; it is made safe for a file name. A file of that name with other contents is kept and
    the next free name is taken, so no scores are lost and a row always finds its own.
    Raises BadInput for an accuracy outside [0, 1] or a folder that cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(SCORE_COLUMNS)
    for split, by_index in scores.items():
        for index, accuracy in sorted(by_index.items()):
            if not 0 <= accuracy <= 1:
                raise BadInput(f"Accuracy {accuracy} of architecture {index} of '{split}' is outside [0, 1].")
            writer.writerow((safe_text(split), index, float(accuracy)))
    payload = buffer.getvalue().encode()
    safe = re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.") or "job"
    folder = Path(folder)
    with locked(folder / "scores"), writable(folder):
        attempt = 1
        while True:
            path = folder / (f"{safe}.csv" if attempt == 1 else f"{safe}-{attempt}.csv")
            if not path.exists():
                write_atomically(path, payload)
                return path.name
            if path.read_bytes() == payload:
                return path.name
            attempt += 1


def read_scores(path: str | Path) -> dict[str, dict[int, float]]:
    """Per-architecture accuracies {split: {index: accuracy}} of one job. CorruptFile names a faulty row."""
    scores: dict[str, dict[int, float]] = {}
    with reading(path, "a file of scores"):
        text = Path(path).read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    if not lines or lines[0].replace('"', "") != ",".join(SCORE_COLUMNS):
        raise CorruptFile(f"{path} does not start with the header '{','.join(SCORE_COLUMNS)}'.")
    if not text.endswith("\n"):
        raise CorruptFile(f"{path}, row {len(lines)}: the line is cut off.")
    with reading(path, "a file of scores"):
        rows = list(csv.reader(lines[1:]))
    for number, cells in enumerate(rows, start=2):
        try:
            split, index, accuracy = cells[0], int(cells[1]), float(cells[2])
            if len(cells) != 3 or not 0 <= accuracy <= 1 or index < 0 or index in scores.get(split, ()):
                raise ValueError
        except (ValueError, IndexError):
            raise CorruptFile(
                f"{path}, row {number}: {','.join(cells)!r} is not a new split,index,accuracy in [0, 1]."
            ) from None
        scores.setdefault(split, {})[index] = accuracy
    return scores
