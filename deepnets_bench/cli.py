"""The `deepnets-bench` command: gathers the commands and turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings

import typer

from deepnets_bench import __version__
from deepnets_bench.commands import (
    data,
    doctor,
    embed,
    finetune,
    gnn,
    grid,
    leaderboard,
    predict,
    properties,
    run,
    search,
    train,
)
from deepnets_bench.commands.options import refine
from deepnets_bench.errors import DeepNetsError, Interrupted
from deepnets_bench.system.terminal import show_in_any_encoding

app = typer.Typer(
    name="deepnets-bench",
    help="DeepNets-1M on your own machine, and a fair benchmark of graph neural networks on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    data,
    run,
    grid,
    predict,
    train,
    properties,
    search,
    finetune,
    embed,
    gnn,
    leaderboard,
    doctor,
):
    module.register(app)
refine(app)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"deepnets-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    if debug:
        os.environ["DEEPNETS_BENCH_DEBUG"] = "1"


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main() -> None:
    """Entry point. Exit code 0, 2 for bad input, 1 for work that failed, 130 for Ctrl-C."""
    show_in_any_encoding()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # raised inside torch_geometric
    warnings.filterwarnings("ignore", message="Sparse (invariant|CSR)")  # raised inside its pooling layers
    warnings.showwarning = _show_warning
    try:
        app()
    except DeepNetsError as error:
        _leave(str(error), error.exit_code, error)
    except KeyboardInterrupt as error:
        _leave(str(error) or "Interrupted; finished work is kept.", Interrupted.exit_code, error)
    except MemoryError as error:
        _leave("Out of memory.", 1, error)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _leave(f"{error.strerror or error}{place}.", 1, error)


def _leave(sentence: str, code: int, error: BaseException) -> None:
    if code == Interrupted.exit_code:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more Ctrl-C changes nothing
    if os.environ.get("DEEPNETS_BENCH_DEBUG"):
        traceback.print_exception(error)
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)
