"""`modelmq dead …` as typer sees it: the commands and their flags. What they do is in `dead`."""
# ruff: noqa: PLC0415 - each command imports only what it needs, so that a small question is answered quickly

from __future__ import annotations

from typing import Annotated

import typer

from modelmq.cli import config
from modelmq.cli.flags import Config, Output, Set, StateDir, found
from modelmq.settings import Settings

app = typer.Typer(
    help="Requests that were put aside: look at them, send them on their way again, throw them away.",
    no_args_is_help=True,
)

Places = Annotated[
    list[str] | None, typer.Argument(metavar="PLACE", help="Models, @expired, @unrouted; all unless told.")
]
Targets = Annotated[
    list[str], typer.Argument(metavar="TARGET", help="Letters by their ids, or all of a model, @expired, @unrouted.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those that died of this.")]
Older = Annotated[
    str | None, typer.Option("--older-than", metavar="TIME", help="Only those dead for so long: 90s, 2h.")
]
Newer = Annotated[str | None, typer.Option("--newer-than", metavar="TIME", help="Only those that died since: 15m, 7d.")]
Most = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many of each place, the oldest first.")]


@app.command("list")
def dead_list(  # noqa: PLR0913, PLR0917 - one for each flag
    places: Places = None,
    reason: Reason = None,
    older_than: Older = None,
    newer_than: Newer = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many of each place.")] = 100,
    config_file: Config = None,
    state_dir: StateDir = None,
    set_: Set = None,
    output: Output = "text",
) -> None:
    """List dead letters, the oldest first. Changes neither the letters nor their order."""
    from modelmq.cli import dead

    filters = dead.filters(reason, older_than, newer_than, limit)
    dead.list_letters(_settings(config_file, state_dir, set_), places or (), filters, as_json=output == "json")


@app.command("show")
def dead_show(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="A letter's id, from modelmq dead list.")],
    config_file: Config = None,
    state_dir: StateDir = None,
    set_: Set = None,
    output: Output = "text",
) -> None:
    """Show a letter whole: why it died, its headers and its body."""
    from modelmq.cli import dead

    dead.show(_settings(config_file, state_dir, set_), letter, as_json=output == "json")


@app.command("replay")
def dead_replay(  # noqa: PLR0913, PLR0917 - one for each flag
    targets: Targets,
    reason: Reason = None,
    older_than: Older = None,
    newer_than: Newer = None,
    limit: Most = None,
    deadline: Annotated[
        str,
        typer.Option(
            "--deadline", metavar="keep|model|TIME", help="Its own, its model's timeout anew, or so long from now."
        ),
    ] = "keep",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be replayed.")] = False,
    config_file: Config = None,
    state_dir: StateDir = None,
    set_: Set = None,
    output: Output = "text",
) -> None:
    """Send letters to their models again, without their reply addresses: nobody waits for the answers any more.

    A letter leaves its queue once RabbitMQ has confirmed the request in another. Ends with 1 when some stay.
    """
    from modelmq.cli import dead

    filters = dead.filters(reason, older_than, newer_than, limit)
    how = dead.Replay(dead.deadline(deadline), dry_run)
    dead.replay(_settings(config_file, state_dir, set_), targets, filters, how, as_json=output == "json")


@app.command("purge")
def dead_purge(  # noqa: PLR0913, PLR0917 - one for each flag
    targets: Targets,
    reason: Reason = None,
    older_than: Older = None,
    newer_than: Newer = None,
    limit: Most = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Purge without asking.")] = False,
    config_file: Config = None,
    state_dir: StateDir = None,
    set_: Set = None,
    output: Output = "text",
) -> None:
    """Throw letters away for good, after you agreed: just those that were counted then."""
    from modelmq.cli import dead

    filters = dead.filters(reason, older_than, newer_than, limit)
    dead.purge(_settings(config_file, state_dir, set_), targets, filters, yes=yes, as_json=output == "json")


def _settings(config_file: Config, state_dir: StateDir, pairs: Set) -> Settings:
    return config.attached(found(config_file, pairs, {"state_dir": state_dir}))
