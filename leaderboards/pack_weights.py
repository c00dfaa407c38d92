"""Pack the trained hypernetworks of one seed of every board, with the rows that tell what they are.

Run by `make weights`: `python leaderboards/pack_weights.py SEED ARCHIVE.tar.gz`.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from deepnets_bench.board import Leaderboard
from deepnets_bench.harness.runs.job import GHN_FILE
from deepnets_bench.leaderboard.results import run_folders
from deepnets_bench.system.files import replacing

HERE = Path(__file__).parent


def weights_of(results: Path, seed: int) -> list[Path]:
    """Files of the runs that stand on the board of a results file, controls among them."""
    board = Leaderboard(results).board
    rows = [row for entry in (*board.entries, *board.controls) for row in entry.rows]
    hashes = sorted({row.config_hash for row in rows if row.seed == seed and row.status == "ok"})
    runs = [run for each in hashes for run in run_folders(results.parent, each)]
    return [path for run in runs if (path := run / GHN_FILE).exists()]


def main(seed: int, archive: Path) -> None:
    """Write the archive; its paths are relative to this folder."""
    found = {results: weights_of(results, seed) for results in sorted(HERE.glob("*/results.csv"))}
    if not any(found.values()):
        sys.exit(f"No trained hypernetworks of seed {seed} in {HERE.name}/; `make boards` trains them.")
    archive.parent.mkdir(exist_ok=True)
    with replacing(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for results, weights in found.items():
            for path in (results, *weights) if weights else ():
                tar.add(path, path.relative_to(HERE))
    print(f"{sum(map(len, found.values()))} hypernetworks in {archive}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
