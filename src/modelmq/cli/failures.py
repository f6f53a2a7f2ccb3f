"""What a command says and with which status it ends when something goes wrong: one table, one sentence.

Exit statuses: 1 in general, 2 for wrong usage or settings (1 where 2 says that something differs); of a request that
was answered with an error, 3 when it is the request's fault, 4 when a retry may help, 5 when it is the model's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer.core

from modelmq.cli.streams import let_go
from modelmq.errors import (
    BrokerError,
    ConfigError,
    Expired,
    InvalidRequest,
    ModelMQError,
    NotFound,
    Overloaded,
    ProvisionError,
    RequestError,
    TooLarge,
    Unavailable,
    Unsupported,
)

GENERAL, USAGE, REQUEST, RETRY, MODEL = 1, 2, 3, 4, 5
INTERRUPTED = 130

_STATUSES: tuple[tuple[tuple[type[ModelMQError], ...], int], ...] = (
    ((ConfigError,), USAGE),
    ((InvalidRequest, NotFound, TooLarge, Unsupported), REQUEST),
    ((Overloaded, Unavailable, Expired, BrokerError), RETRY),
    ((RequestError,), MODEL),
)


def status_of(error: ModelMQError) -> int:
    """The exit status of the first row of the table that fits."""
    return next((status for kinds, status in _STATUSES if isinstance(error, kinds)), GENERAL)


@contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Errors of ours leave as one line on standard error and an exit status; with `debug` as what they are."""
    try:
        yield
    except ModelMQError as error:
        if debug:
            raise
        print(f"modelmq: {error.message}", file=sys.stderr)  # noqa: T201 - this is the command's output
        raise SystemExit(status_of(error)) from error
    except KeyboardInterrupt:
        if debug:
            raise
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # Somebody read only our first lines, as `head` does.
        let_go(sys.stdout)
        raise SystemExit(GENERAL) from None


class StatusTwoIsChanges(typer.core.TyperCommand):
    """A command whose status 2 is an answer: flags that do not exist end it with 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As for every command, but for the status."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Which class refuses flags differs between typer's versions; all of them carry their status.
            if getattr(error, "exit_code", GENERAL) == USAGE:
                vars(error)["exit_code"] = GENERAL
            raise


@contextmanager
def general() -> Iterator[None]:
    """For the same commands: wrong settings are an error like any other."""
    try:
        yield
    except ModelMQError as error:
        if status_of(error) == USAGE:
            raise ProvisionError(error.message) from error
        raise
