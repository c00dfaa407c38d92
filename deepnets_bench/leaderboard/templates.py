"""Templates of pages: `base.html.j2` and `parts.html.j2` here are shared by the pages of all packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepnets_bench.errors import MissingExtra

if TYPE_CHECKING:
    from jinja2 import Template

_SHARED = "deepnets_bench.leaderboard"


def template(name: str, package: str = _SHARED) -> Template:
    """A template of a package, which may use those here; raises `MissingExtra` without Jinja2."""
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra("An HTML page", "report") from None
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place, ".") for place in dict.fromkeys((package, _SHARED))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
