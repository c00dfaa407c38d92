"""What a hypernetwork predicts of every classification model of torchvision, as a Markdown table.

Run with `python -m tests.benchmarks.torchvision_table > docs/torchvision.md`. Models are traced on 224×224
images (Inception v3: 299×299) without storage, so that the largest ones cost seconds and no memory.
"""

from __future__ import annotations

from collections import Counter

from deepnets_bench.graphs.tracing.reasons import CLASS_TOKEN, LAYER_SCALE
from deepnets_bench.graphs.tracing.trace import trace
from tests.graphs.test_trace import on_meta, torchvision

KEEPS_INITIAL = {LAYER_SCALE, CLASS_TOKEN}  # as in the published code of GHN-3
AUXILIARY = ("googlenet", "inception_v3")  # their auxiliary classifiers do not run in evaluation mode
NO_NODE = ", which no"  # ... node of DeepNets-1M describes: said once, above the table

HEADER = """\
# Torchvision models

Every classification model of torchvision {version}, traced by `ComputationGraph.from_module`. Made by
`python -m tests.benchmarks.torchvision_table`.

Predicted: share of the values of all parameters, and of the parameters. A model is complete when nothing is
left but layer scales and class tokens, which keep their initial value as in the published code of GHN-3, and
auxiliary classifiers that do not run in evaluation mode. What is left of the others enters the scores of
attention, which no node of DeepNets-1M describes.
{complete} of {models} models are complete.

| model | nodes | million values | predicted | parameters | complete | left, and why |
| --- | ---: | ---: | ---: | ---: | :---: | --- |"""


def row(name: str) -> tuple[str, bool]:
    """The line of a model, and whether it is complete."""
    size = 299 if name == "inception_v3" else 224
    module = on_meta(name)
    traced = trace(module, (3, size, size))
    values = {key: parameter.numel() for key, parameter in module.named_parameters()}
    total, left = sum(values.values()), sum(values[key] for key in traced.left)
    reasons = Counter(traced.left.values())
    open_reasons = set(reasons) - KEEPS_INITIAL
    if name in AUXILIARY:
        open_reasons.discard("does not contribute to the output")
    share = f"{1 - left / total:.4%}" if left else "100%"
    text = "; ".join(f"{count} × {reason.partition(NO_NODE)[0]}" for reason, count in reasons.most_common())
    return (
        f"| {name} | {len(traced.op)} | {total / 1e6:.1f} | {share} | "
        f"{len(values) - len(traced.left)}/{len(values)} | {'no' if open_reasons else 'yes'} | {text} |"
    ), not open_reasons


def main() -> None:
    rows = [row(name) for name in sorted(torchvision.models.list_models(torchvision.models))]
    version = ".".join(torchvision.__version__.split(".")[:2])
    complete = sum(whole for _, whole in rows)
    print(HEADER.format(version=version, complete=complete, models=len(rows)))
    print("\n".join(line for line, _ in rows))


if __name__ == "__main__":
    main()
