"""Generation by size: prints a row of the table in docs/performance.md for each number of graphs.

    python tests/benchmarks/scaling.py 1000 10000 100000 [--workers 2]

Each size is made in a fresh folder by a process of its own, after a warm-up that compiles the kernels. CPU
time is that of the process and its workers, peak memory that of the largest among them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deepnets_bench.generators import generate

HEADER = """\
| graphs | workers | seconds | graphs/s | graphs/s of CPU time | bytes/graph | peak memory of a process |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def row(num: int, workers: int) -> str:
    """Generate `num` training graphs here and measure."""
    with tempfile.TemporaryDirectory() as folder:
        generate("val", folder, num=1)  # load the compiled kernels
        start, cpu = time.perf_counter(), _usage()[0]
        manifest = generate("train", folder, num, workers=workers)["train"]
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder, "train").iterdir())
    used, memory = _usage()
    return (
        f"| {manifest.count:,} | {workers} | {seconds:.1f} | {num / seconds:,.0f} "
        f"| {num / (used - cpu):,.0f} | {size / num:.0f} | {memory:.0f} MB |"
    )


def _usage() -> tuple[float, float]:
    """CPU seconds of this process and its children, and the largest peak of memory among them in MB."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return cpu, max(usage.ru_maxrss for usage in usages) / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("num", type=int, nargs="+")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if len(arguments.num) == 1:
        print(row(arguments.num[0], arguments.workers), flush=True)
        return
    print(HEADER, flush=True)
    for num in arguments.num:
        command = [sys.executable, __file__, str(num), "--workers", str(arguments.workers)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
