# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Bring your own GNN and read a verdict
#
# From an idea to a comparison with the baseline that passes no messages. The trainings here are in little
# (`--smoke`): they show the way, their figures mean nothing.

# %% tags=["parameters"]
TRACK = "digits"

# %% [markdown]
# ## The GNN
#
# A file with a class. This one passes messages over virtual edges, with weights that fall with the
# distance.

# %%
from pathlib import Path

_ = Path("near.py").write_text('''
"""Mean of all nodes on a directed path, near ones more."""

import torch
from torch import nn


class Near(nn.Module):
    edges = "virtual"

    def __init__(self, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(layers))

    def forward(self, x, batch):
        source, target = batch.virtual_edge_index
        weight = (1 / batch.distance.to(x.dtype)).unsqueeze(1)
        for layer in self.layers:
            along = torch.zeros_like(x).index_add(0, target, weight * x[source])
            against = torch.zeros_like(x).index_add(0, source, weight * x[target])
            x = x + layer(torch.cat([along, against], 1) / 10).relu()
        return x
''')

# %% [markdown]
# ## Does it keep the contract?

# %%
import subprocess
import sys


def command(*arguments: str) -> None:
    """The command line, as `deepnets-bench ...` in a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "deepnets_bench", *arguments], capture_output=True, text=True
    )
    print(done.stdout if done.returncode == 0 else done.stderr)
    done.check_returncode()


command("gnn", "check", "./near.py:Near")

# %% [markdown]
# ## A run

# %%
command("run", "--gnn", "./near.py:Near,mlp", "--track", TRACK, "--smoke")

# %% [markdown]
# The table has a row a GNN, and says why it makes no claim: of a single seed there is no variation to
# test against. For a real comparison leave out `--smoke` and give `--seeds all`.
#
# Every run leaves its row, too:

# %%
import pandas as pd

rows = pd.read_csv("leaderboards/digits/results.csv")
rows.pivot_table(index="gnn", columns="split", values="accuracy_mean")

# %% [markdown]
# ## The verdict
#
# What counts is the difference in relation to how much runs of one GNN differ from seed to seed. Here are
# figures of an imagined comparison: accuracies on `test` of two GNNs, five seeds, four architectures.

# %%
import numpy as np

from deepnets_bench.leaderboard.stats import compare

seeds = np.array([[52.1], [49.0], [54.3], [50.2], [51.5]]) / 100  # what a seed does to both
architectures = np.array([[-3.0, 1.0, 2.5, -0.5]]) / 100
mine = seeds + architectures + np.array([[1.9], [2.6], [1.2], [2.2], [1.6]]) / 100
theirs = seeds + architectures


def verdict(found) -> str:
    low, high = 100 * found.low, 100 * found.high
    return f"difference {100 * found.difference:.1f} points [{low:.1f}, {high:.1f}], p = {found.p_holm:.4f}"


(found,) = compare({"test": mine}, {"test": theirs})
print(verdict(found))
print(f"differences of {100 * found.detectable:.1f} points would be found in 80 % of such comparisons")

# %% [markdown]
# Seeds differ by five points, but both GNNs share them: paired by seed, the difference is clear. With
# three of the same five seeds the interval is more than twice as wide:

# %%
(fewer,) = compare({"test": mine[:3]}, {"test": theirs[:3]})
print(verdict(fewer))

# %% [markdown]
# *Not significant* means *not separable with these seeds*, not *equal*. More seeds are what helps.
