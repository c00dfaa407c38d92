"""Triton's kernels, compiled for GPUs that are not there: registers, and that none of them spills."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="PyTorch came without Triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from deepnets_bench.ghn.gated import triton as loops  # noqa: E402

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
WHOLE = {"order", "first", "ptr", "node"}
# Registers of a thread on compute capability 8.0 and 9.0, forward and backward: 255 is the most there are.
MOST_REGISTERS = {16: 72, 32: 136, 64: 252}


def compiled(kernel: Any, dim: int, relations: int, capability: int) -> Any:
    """The kernel for a GPU of this capability, as `loops._launch` compiles it."""
    constants = {"RELATIONS": relations, "D": dim, "M": dim // relations, "BLOCK": loops.BLOCK}
    types = {"num_nodes": "i32", "reverse": "u1", **dict.fromkeys(WHOLE, "*i64")}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=loops.options(dim))


@pytest.mark.skipif(not PTXAS.exists(), reason="Triton came without ptxas")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("relations", [1, 2])
@pytest.mark.parametrize("dim", loops.DIMS)
@pytest.mark.parametrize("kernel", [loops._forward, loops._backward], ids=["forward", "backward"])
def test_the_kernels_fit_into_registers(
    kernel: Any, dim: int, relations: int, capability: int, tmp_path: Path
) -> None:
    found = compiled(kernel, dim, relations, capability)
    assert "cp.async" not in found.asm["ptx"]  # what an earlier node wrote is not loaded ahead
    assert found.asm["ptx"].count("bar.sync") >= 1
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text(found.asm["ptx"])
    target = f"sm_{capability}a" if capability == 90 else f"sm_{capability}"
    command = [PTXAS, "-v", f"--gpu-name={target}", ptx, "-o", tmp_path / "kernel.cubin"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert set(re.findall(r"(\d+) bytes spill", report)) == {"0"}, report
    (registers,) = re.findall(r"Used (\d+) registers", report)
    assert int(registers) <= MOST_REGISTERS[dim]
