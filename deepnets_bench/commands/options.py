"""Options of the command line: lists with commas or by repeating, and none that is dropped without a word."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from deepnets_bench.errors import BadInput

TrustOption = Annotated[
    bool, typer.Option("--trust", help="Load a GNN that the checkpoint names and that is not registered.")
]


class StrictCommand(TyperCommand):
    """A command that refuses to be given an option twice, unless it takes a list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As its base class, which keeps the last of several values; raises `BadInput` instead."""
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for parameter, count in Counter(given).items():
            if count > 1 and parameter.param_type_name == "option" and not parameter.multiple:
                raise BadInput(f"{parameter.opts[0]} is given {count} times; it takes one value.")
        return super().parse_args(ctx, args)


def refine(app: typer.Typer) -> None:
    """Let every command of an application and its groups be a `StrictCommand` whose help wraps well."""
    for command in app.registered_commands:
        command.cls = StrictCommand
        command.help = _paragraphs(command.help or inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            refine(group.typer_instance)


def _paragraphs(text: str) -> str:
    """`text` with a line a paragraph: Typer keeps line ends, between which narrower terminals wrap again."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def listed(values: Iterable[str] | None) -> list[str]:
    """The entries of a list that is given with commas, by repeating the option, or both; each once.

    Raises `BadInput` for an empty one.
    """
    return _entries(part for value in values or () for part in value.split(","))


def listed_gnns(values: Iterable[str]) -> list[str]:
    """`listed` for GNNs, of which a file's path may have commas: an existing file is taken whole."""
    return _entries(name for value in values for name in _gnns(value))


def listed_seeds(values: Iterable[str] | None) -> list[int] | Literal["all"] | None:
    """Seeds as whole numbers, or 'all'; None where none are given. Raises `BadInput` for anything else."""
    if values is None:
        return None
    return "all" if listed(values) == ["all"] else whole_numbers(values, ending=", or all")


def whole_numbers(values: Iterable[str], what: str = "Seeds", ending: str = "") -> list[int]:
    """Whole numbers, each once. Raises `BadInput` for anything else, which says what `what` are."""
    numbers = listed(values)
    if not numbers or not all(number.isdecimal() for number in numbers):
        given = ",".join(values)
        raise BadInput(f"{what} are whole numbers separated by commas, such as 0,1,2{ending}, not '{given}'.")
    return list(dict.fromkeys(int(number) for number in numbers))


def _entries(parts: Iterable[str]) -> list[str]:
    entries = [part.strip() for part in parts]
    if not all(entries):
        raise BadInput(
            f"The list '{','.join(entries)}' has an empty item; write one comma between two items."
        )
    return list(dict.fromkeys(entries))


def _gnns(value: str) -> Iterator[str]:
    """The names between the commas of `value`, but for commas in the path of an existing file."""
    parts = value.split(",")
    while parts:
        count = next((n for n in range(len(parts), 1, -1) if _is_file(",".join(parts[:n]))), 1)
        yield ",".join(parts[:count])
        del parts[:count]


def _is_file(name: str) -> bool:
    path, _, attribute = name.strip().rpartition(":")
    return Path(name.strip()).is_file() or (attribute.isidentifier() and Path(path).is_file())
