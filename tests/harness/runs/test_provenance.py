"""What a result row says of the code that made it."""

import subprocess
from pathlib import Path

import pytest

from deepnets_bench.harness.runs.provenance import git_commit, other_code


@pytest.fixture
def package(tmp_path) -> Path:
    """The folder of a package in a repository with one commit."""
    for folder in ("package", "generators", "baselines", "leaderboards"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "First")
    return tmp_path / "package"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_of_the_package(package):
    assert git_commit(package) == git(package, "rev-parse", "HEAD")


@pytest.mark.parametrize("changed", ["package/__init__.py", "baselines/__init__.py", "generators/new.py"])
def test_code_that_is_not_as_committed_is_dirty(package, changed):
    (package.parent / changed).write_text("changed = True")
    assert git_commit(package) == git(package, "rev-parse", "HEAD") + "-dirty"


def test_results_do_not_make_the_code_dirty(package):
    (package.parent / "leaderboards" / "results.csv").write_text("gnn")
    assert git_commit(package) == git(package, "rev-parse", "HEAD")


def test_no_commit_for_a_package_that_is_no_part_of_the_repository_it_lies_in(package):
    installed = package.parent / "venv"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    assert git_commit(installed) == ""


def test_no_commit_outside_a_repository(tmp_path):
    assert git_commit(tmp_path) == ""


def commit(folder: Path, changed: str) -> str:
    (folder / changed).write_text(f"# {changed}")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", changed)
    return git(folder, "rev-parse", "HEAD")


def test_commits_of_other_code(package):
    first = git(package, "rev-parse", "HEAD")
    rows = commit(package.parent, "leaderboards/results.csv")
    code = commit(package.parent, "baselines/new.py")
    more = commit(package.parent, "leaderboards/more.csv")
    assert other_code([first, rows, f"{first}-dirty"], package) == []
    assert other_code([first, rows, code, more], package) == [code, more]
    assert other_code([code, more], package) == []
    assert other_code(["", "0" * 40, rows, code], package) == [code], "unknown ones are left out"


def test_outside_a_repository_nothing_is_known_of_commits(tmp_path):
    assert other_code(["0" * 40, "1" * 40], tmp_path) == []
