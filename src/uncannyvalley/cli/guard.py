"""The one place where errors become a message and an exit code."""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from uncannyvalley.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """``command`` with exit code 2 for the user's mistakes and 130 after Ctrl-C, each with one message."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except InputError as error:
            typer.echo(f"uncanny: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo(
                "\nuncanny: stopped. Finished shards are kept; the same command goes on from there", err=True
            )
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of the pipe left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None

    return run
