"""Check the contracts on imports in pyproject.toml, on the package as it is installed.

Run as `python .ci/imports.py [REPOSITORY]`. import-linter sees a package as one folder, but generators/ and
baselines/ are mapped into ours from beside it: so it gets a copy in which they are in their place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    linter = find_spec("importlinter")
    if linter is None or linter.origin is None:
        sys.exit("import-linter is not installed: pip install 'deepnets-bench[dev]'")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "deepnets_bench")
        for source, target in (
            ("deepnets_bench", "."),
            ("generators", "generators"),
            ("baselines", "baselines"),
        ):
            shutil.copytree(root / source, package / target, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(root / "pyproject.toml", folder)
        paths = os.pathsep.join([folder, str(Path(linter.origin).parents[1])])
        # Without site (-S), an editable installation cannot hide the copy.
        command = [sys.executable, "-S", "-c", LINT]
        return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": paths}).returncode


sys.exit(main())
