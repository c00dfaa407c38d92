# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Explore the data
#
# Architectures, their graphs, and how the splits differ. Runs in seconds; drawing needs the extra
# `report`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import deepnets_bench as dnb
from deepnets_bench.generators import SPLITS, generate, sample

# %% [markdown]
# ## An architecture
#
# Any architecture is made by its split and number, without a file.

# %%
arch = sample("test", 12)
arch.to_dict()

# %% [markdown]
# A cell has steps; each adds the outputs of two operations on two earlier states. The graph of the whole
# network has a node for every primitive.

# %%
graph = arch.graph(width=32)
print(graph.num_nodes, "nodes,", graph.num_edges, "edges")
pd.Series([dnb.PRIMITIVES[op] for op in graph.op]).value_counts()

# %%
ax = graph.draw()

# %% [markdown]
# The nodes with parameters know their names and shapes: this is what a hypernetwork predicts.

# %%
pd.DataFrame({"name": graph.param_name, "shape": graph.param_shape}).dropna().head(8)

# %% [markdown]
# ## Splits
#
# A hundred graphs of each distribution, generated here, as one table.

# %%
names = ["test", "deep", "dense", "bnfree"]
norms = [dnb.PRIMITIVES.index(name) for name in ("bn", "ln")]
rows = []
for name in names:
    for index in range(100):
        graph = sample(name, index).graph()
        rows.append(
            {
                "split": name,
                "nodes": graph.num_nodes,
                "edges": graph.num_edges,
                "depth": graph.level.max(),
                "norms": np.isin(graph.op, norms).mean(),
            }
        )
table = pd.DataFrame(rows)
table.groupby("split")[["nodes", "edges", "depth", "norms"]].mean().round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
for name in names:
    part = table[table.split == name]
    bins = np.geomspace(30, 1300, 20)
    axes[0].hist(part.nodes, bins=bins, histtype="step", label=name)
    axes[1].hist(part.depth, bins=20, histtype="step")
axes[0].set(xscale="log", xlabel="nodes")
axes[1].set(xlabel="longest path")
legend = axes[0].legend(frameon=False)

# %% [markdown]
# The differences are in the recipes, ranges from which each architecture is drawn:

# %%
pd.DataFrame({name: SPLITS[name].recipe._asdict() for name in names}).T

# %% [markdown]
# ## A data set for PyTorch
#
# Files are written once, and read as a torch_geometric data set. Virtual edges join nodes on a directed
# path.

# %%
generate(["val"], "data", 500)
dataset = dnb.DeepNets1M("data", split="val")
item = dataset[0]
print(
    item.num_nodes,
    "nodes,",
    item.edge_index.shape[1],
    "edges,",
    item.virtual_edge_index.shape[1],
    "virtual edges",
)

# %%
distance = np.concatenate([dataset[i].distance.numpy() for i in range(50)])
fig, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
ax.hist(distance, bins=np.arange(1, 52), color="#4477aa")
labels = ax.set(xlabel="directed distance of virtual edges", ylabel="pairs in 50 graphs")
