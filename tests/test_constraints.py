"""The versions that `make setup` installs: plain, and one for every dependency."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PINS = [
    Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in "#"
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]


def test_every_line_is_one_plain_version() -> None:
    for pin in PINS:
        (version,) = pin.specifier
        assert version.operator == "==", pin
        assert "+" not in version.version, pin  # a build of one kind of machine
        assert (pin.url, pin.extras) == (None, set()), pin
    assert len({pin.name for pin in PINS}) == len(PINS)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_has_a_version_within_its_range(requirement: Requirement) -> None:
    if requirement.name in ("deepnets-bench", "tomli"):  # itself; for Python 3.10 alone
        return
    (pin,) = [pin for pin in PINS if canonicalize_name(requirement.name) == pin.name]
    (version,) = pin.specifier
    assert requirement.specifier.contains(version.version), (pin, requirement)
