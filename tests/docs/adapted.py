"""What the tests run instead of a documented command or block, and why; all others run as they are written.

Keys are commands without comment, or the first line of a Python block. Where `instead` is None nothing runs,
but the command line still reads the command, so that its options exist. An entry of no page fails a test.
"""

from __future__ import annotations

from typing import NamedTuple


class Adapted(NamedTuple):
    instead: str | None
    reason: str


def _skip(reason: str) -> Adapted:
    return Adapted(None, reason)


def _small(command: str) -> Adapted:
    """The same on the track of the tests, which is `digits` with 2 steps and a network a split."""
    return Adapted(command, "a training of the right length takes minutes, and its results are not shared")


_SETUP = _skip("the environment of the tests is installed already")
_CLUSTER = _skip("needs a Dask cluster; tests/harness and tests/generators have one on this machine")
_CIFAR = _skip("needs CIFAR-10 and hours on a GPU; tests/harness reads small files in this format")
_IMAGENET = _skip("needs ImageNet and weeks on a GPU; tests/harness reads small files in this format")
_TIMED = _skip("measures times, for minutes")

_RELEASED = _skip("needs the released files; tests/uses makes small ones of their form")
_LABELLED = _skip("needs labels of a thousand trainings; tests/uses has small ones")

DEMO = "deepnets-bench run --gnn mlp,gat --track tiny.toml --smoke"
MINE = "deepnets-bench run --gnn ./mine.py:MyGNN --track tiny.toml --smoke"

COMMANDS = {
    "make demo": Adapted(DEMO, "`make demo` installs first and trains for minutes"),
    "pip install .": _SETUP,
    "deepnets-bench run --gnn mlp --smoke --out mine": _small(
        "deepnets-bench run --gnn mlp --track tiny.toml --smoke"
    ),
    "deepnets-bench run --gnn mlp --smoke --no-resume": _small(f"{DEMO} --no-resume"),
    "deepnets-bench run --gnn mlp --seeds 0": _small(DEMO),
    "deepnets-bench run --gnn mlp,gat --smoke --out mine": _small(DEMO),
    "deepnets-bench run --gnn mlp,gat --seeds all --out mine": _small(DEMO),
    "deepnets-bench run --gnn gat --seeds all --out mine": _small(DEMO),
    "deepnets-bench leaderboard show --smoke --results mine/results.csv": _small(
        "deepnets-bench leaderboard show --smoke"
    ),
    "deepnets-bench leaderboard show --results mine/results.csv": _small(
        "deepnets-bench leaderboard show --smoke"
    ),
    "deepnets-bench leaderboard compare gat mlp --results mine/results.csv": _small(
        "deepnets-bench leaderboard compare gat mlp --smoke"
    ),
    "deepnets-bench leaderboard build": _small("deepnets-bench leaderboard build --smoke --out board"),
    "deepnets-bench leaderboard html": _small("deepnets-bench leaderboard html --smoke --out board.html"),
    'deepnets-bench leaderboard reproduce mine/results.csv --by "Your Name"': _skip(
        "compares finished rows with rows of all seeds; tests/commands has some"
    ),
    "deepnets-bench run --gnn ./mine.py:MyGNN --smoke --out mine": _small(MINE),
    "deepnets-bench run --gnn ./mine.py:MyGNN,mlp --seeds all --out mine": _small(MINE),
    "deepnets-bench run --gnn ./mine.py:MyGNN --seeds all --track digits": _small(MINE),
    "deepnets-bench run --gnn gat,gin,ghn3 --seeds 0,1,2 --log tensorboard": _small(DEMO),
    "deepnets-bench run --gnn gat --track imagefolder --images ~/mine --smoke": _skip(
        "needs images in folders; tests/harness trains on some"
    ),
    "deepnets-bench eval CHECKPOINT --split test --noise 0.08": Adapted(
        "deepnets-bench eval CHECKPOINT --split test --noise 0.08 --track tiny.toml",
        "50 networks take half a minute; `tiny.toml` has one",
    ),
    "deepnets-bench train test/12 --seeds 0,1,2": _small(
        "deepnets-bench train test/12 --epochs 1 --track tiny.toml"
    ),
    "deepnets-bench train torchvision:resnet18 --shots 20 --init orthogonal": _small(
        "deepnets-bench train torchvision:resnet18 --shots 2 --init orthogonal --track tiny.toml"
    ),
    "deepnets-bench train test/12 --epochs 600 --cutout 8 --drop-path 0.2 --auxiliary 0.4 --out long": _small(
        "deepnets-bench train test/12 --epochs 2 --cutout 8 --drop-path 0.2 --auxiliary 0.4 --out long "
        "--track tiny.toml"
    ),
    "deepnets-bench label --split val,test --count 500": _small(
        "deepnets-bench label --split val --count 1 --seeds 0 --track tiny.toml --jobs 1"
    ),
    "deepnets-bench label --split val,test --count 500 --time": _small(
        "deepnets-bench label --split val --count 1 --seeds 0 --track tiny.toml --time"
    ),
    "deepnets-bench label --split test,wide,deep,dense,bnfree --count 50 "
    "--out leaderboards/digits/trained.csv": _small(
        "deepnets-bench label --split test --count 1 --seeds 0 --track tiny.toml --jobs 1 "
        "--out leaderboards/digits/trained.csv"
    ),
    "deepnets-bench properties baselines": _LABELLED,
    "deepnets-bench properties direct --gnn mlp,gat,gin --seeds 0,1,2,3,4": _LABELLED,
    "deepnets-bench properties frozen leaderboards/digits": _LABELLED,
    "deepnets-bench import deepnets1m_meta.tar.gz --out published": _RELEASED,
    "deepnets-bench properties frozen ghn2_cifar10.pt --protocol published --labels results_cifar10.json "
    "--data published": _RELEASED,
    "deepnets-bench embed CHECKPOINT --split val,test --count 500 --out embeddings.npz": Adapted(
        "deepnets-bench embed CHECKPOINT --split val,test --count 2 --out embeddings.npz",
        "a thousand graphs take longer than the rest of the page",
    ),
    "deepnets-bench properties show --mode direct --plot curves.svg --scatter scatter.svg": _LABELLED,
    "deepnets-bench properties html": _LABELLED,
    "deepnets-bench search --ghn CHECKPOINT --property accuracy --top 10": _LABELLED,
    "deepnets-bench search --ghn CHECKPOINT --property accuracy --pareto speed": _LABELLED,
    "deepnets-bench search --ghn CHECKPOINT --property speed --no-worse accuracy": _LABELLED,
    "deepnets-bench search --ghn CHECKPOINT --property accuracy --top 10 --train --seeds 0,1,2": _LABELLED,
    "deepnets-bench finetune --ghn CHECKPOINT --track mnist --model test/1,test/3,vit --shots 5,20 "
    "--seeds 0,1,2,3,4": Adapted(
        "deepnets-bench finetune --ghn CHECKPOINT --track mnist --model test/1 --shots 2 --seeds 0 "
        "--epochs 1 --jobs 1",
        "ninety trainings with four rates each take half an hour",
    ),
    "deepnets-bench run --gnn ghn2 --track cifar10 --images ~/images --download": _CIFAR,
    "deepnets-bench run --gnn ghn2 --track cifar10 --images ~/images --devices 4 --precision bf16": _CIFAR,
    "torchrun --nproc-per-node 4 -m deepnets_bench run --gnn ghn2 --track cifar10 --images ~/images": _CIFAR,
    "deepnets-bench run --gnn ghn2 --track imagenet --images ~/imagenet": _IMAGENET,
    "deepnets-bench generate --split train --out /shared/data --scheduler tcp://HOST:PORT": _CLUSTER,
    "deepnets-bench run --gnn gat,gin,gcn --seeds all --out /shared/results --data /shared/data "
    "--scheduler tcp://HOST:PORT": _CLUSTER,
    "python tests/benchmarks/scaling.py 1000 10000 100000 1000000 --workers 2": _TIMED,
}
BLOCKS = {  # `instead` takes the place of the first line
    'bench = dnb.Benchmark("digits", data="data")  # a track and its data, which are generated when needed': (
        _small('bench = dnb.Benchmark("tiny.toml", data="data")')
    ),
    "from dask_jobqueue import SLURMCluster": _skip("needs a Slurm cluster"),
}
