"""Print what is installed beside this interpreter as pip constraints, for `make constraints`."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

HEADER = """\
# The versions that results are made with: `make setup` installs these, pyproject.toml allows more.
# Written by `make constraints` from what .venv holds; `make clean setup CONSTRAINTS= constraints` moves to
# the newest releases. A package that the oldest supported Python cannot have in this version is free there.
# Versions are plain: any build of them will do (CPU, CUDA, ROCm).
"""
OLDEST = "3.10"
# The package itself, its installer, and the parts of CUDA, whose versions torch itself fixes for its build.
LEFT_OUT = ("deepnets-bench", "pip")
LEFT_OUT_PREFIXES = ("nvidia-", "cuda-")


def main() -> None:
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}
    print(HEADER, end="")
    for name, found in sorted(installed.items()):
        if name not in LEFT_OUT and not name.startswith(LEFT_OUT_PREFIXES):
            print(f"{name}=={Version(found.version).public}{marker(found)}")


def marker(found: Distribution) -> str:
    """The Pythons for which the pin holds, unless it holds for the oldest already."""
    needs = SpecifierSet(found.metadata["Requires-Python"] or "")
    if OLDEST in needs:
        return ""
    return "; " + " and ".join(f"python_full_version {s.operator} '{s.version}'" for s in needs)


if __name__ == "__main__":
    main()
