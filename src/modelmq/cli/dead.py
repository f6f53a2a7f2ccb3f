"""`modelmq dead …`: which letters are meant, as whom they are handled, and what is said about it.

A target is a place (a model, `@expired`, `@unrouted`) or the id of a letter, which begins with its place.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from rich.console import Console
from rich.text import Text

from modelmq.cli import as_operator
from modelmq.cli import dead_text as text
from modelmq.dead_letters.desk import Desk, Listing, Order, Replayed, desk
from modelmq.dead_letters.letter import is_place, place_of
from modelmq.dead_letters.replay import KEEP, RESET, Deadline
from modelmq.dead_letters.selection import Selection, duration_s
from modelmq.errors import ConfigError, LettersError, ProvisionError
from modelmq.settings import Settings
from modelmq.topology_names import REDELIVER_EXCHANGE

T = TypeVar("T")
_WIDTH = 1000
"""Wider than any line: ids are not to be cut, and a terminal folds what is too long for it."""


class Replay(NamedTuple):
    """How to replay, as far as flags say."""

    deadline: Deadline
    dry_run: bool


def filters(reason: str | None, older_than: str | None, newer_than: str | None, limit: int | None) -> Selection:
    """What the flags select. Raises ConfigError."""
    return Selection(
        reason=reason,
        older_than_s=None if older_than is None else duration_s(older_than, "--older-than"),
        newer_than_s=None if newer_than is None else duration_s(newer_than, "--newer-than"),
        limit=limit,
    )


def deadline(word: str) -> Deadline:
    """`keep`, `model` or a time. Raises ConfigError."""
    if word == "keep":
        return KEEP
    return RESET if word == "model" else Deadline(keep=False, within_s=duration_s(word, "--deadline"))


def targets(words: Sequence[str], given: Selection) -> dict[str, Selection]:
    """What is selected in each place that the words name. Raises ConfigError."""
    ids: dict[str, set[str]] = {}
    for word in words:
        place, colon, digest = word.partition(":")
        if not is_place(place) or (colon and not digest):
            raise ConfigError(f'"{word}" is neither a model, @expired or @unrouted, nor a letter of modelmq dead list.')
        if place in ids and bool(colon) != bool(ids[place]):
            raise ConfigError(f"Name either letters of {place} or {place} itself, which is all of them.")
        ids.setdefault(place, set()).update([word] if colon else [])
    return {place: msgspec.structs.replace(given, ids=frozenset(named)) for place, named in ids.items()}


def list_letters(settings: Settings, places: Sequence[str], given: Selection, *, as_json: bool) -> None:
    """Prints them. Raises ConfigError, LettersError, BrokerError, as all here do."""
    wanted = targets(places, given) if places else dict.fromkeys(_places(settings), given)

    async def work(at: Desk) -> dict[str, Listing]:
        return {place: await at.list_letters(place, chosen, _now_ms()) for place, chosen in wanted.items()}

    found = _at_desk(settings, work)
    _print(text.listing_json(found) if as_json else text.listing(found, _now_ms()))


def show(settings: Settings, name: str, *, as_json: bool) -> None:
    """Prints one letter whole."""
    place, colon, _ = name.partition(":")
    if not colon or not is_place(place):
        raise ConfigError(f'"{name}" is no letter\'s id: see modelmq dead list.')
    found = _at_desk(settings, lambda at: at.show(place, name))
    _print(text.shown_json(found) if as_json else text.shown(found, _now_ms()))


def replay(settings: Settings, words: Sequence[str], given: Selection, how: Replay, *, as_json: bool) -> None:
    """Sends them again and prints what became of them. SystemExit 1 when some stay."""
    wanted, takers = targets(words, given), _takers(settings)

    async def work(at: Desk) -> dict[str, Replayed]:
        done = {}
        for place, chosen in wanted.items():
            order = Order(how.deadline, _now_ms(), takers, how.dry_run)
            done[place] = await at.replay(place, chosen, order)
        return done

    done = _at_desk(settings, work)
    _print(text.replayed_json(done) if as_json else text.replayed(done, dry_run=how.dry_run))
    for place, became in done.items():
        _complete(place, wanted[place], became.letters + became.kept.total())
    if any(became.kept for became in done.values()):
        raise SystemExit(1)


def purge(settings: Settings, words: Sequence[str], given: Selection, *, yes: bool, as_json: bool) -> None:
    """Throws them away, once that was agreed to, and prints how many."""
    wanted = targets(words, given)
    if not yes:
        wanted = _agreed(settings, wanted)

    async def work(at: Desk) -> dict[str, int]:
        return {place: await at.purge(place, chosen, _now_ms()) for place, chosen in wanted.items()}

    done = _at_desk(settings, work)
    _print(text.purged_json(done) if as_json else text.purged(done))
    for place, count in done.items():
        _complete(place, wanted[place], count)


def _agreed(settings: Settings, wanted: Mapping[str, Selection]) -> dict[str, Selection]:
    """Just the letters that were there when somebody agreed, whatever comes meanwhile. Raises LettersError."""

    async def look(at: Desk) -> dict[str, Listing]:
        return {place: await at.list_letters(place, chosen, _now_ms()) for place, chosen in wanted.items()}

    found = _at_desk(settings, look)
    counts = text.counted({place: len(listing.letters) for place, listing in found.items()})
    if not any(listing.letters for listing in found.values()):
        return {}
    if not _asked():
        raise LettersError(f"Nothing was purged: this throws away {counts}; say --yes if that is what you want.")
    answer = Console().input(Text(f"Throw away {counts}, for good? [y/N] ")).strip().lower()
    if answer not in ("y", "yes"):
        raise LettersError("Nothing was purged.")
    return {
        place: Selection(ids=frozenset(letter.id for letter in listing.letters))
        for place, listing in found.items()
        if listing.letters
    }


def _asked() -> bool:
    """Whether somebody is there who can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _complete(place: str, wanted: Selection, found: int) -> None:
    """Whoever names letters hears of those that are not there. Raises LettersError."""
    missing = len(wanted.ids) - found
    if missing > 0 and wanted == Selection(ids=wanted.ids):
        verb = "is" if missing == 1 else "are"
        raise LettersError(f"{missing} of the letters named {verb} not in {place} (any more).")


def _places(settings: Settings) -> list[str]:
    """All that there are, as the management API tells. Raises ProvisionError."""
    try:
        with as_operator.management(settings) as management:
            queues = management.queues(settings.broker.vhost)
    except ProvisionError as error:
        raise LettersError(f"Name the model: which there are cannot be asked. {error.message}") from error
    return sorted(place for queue in queues if (place := place_of(queue.name)) is not None)


def _takers(settings: Settings) -> frozenset[str] | None:
    """The routing keys that some queue takes; None where the management API does not tell."""
    try:
        with as_operator.management(settings) as management:
            bindings = management.bindings(settings.broker.vhost)
    except (ProvisionError, ConfigError):
        return None
    return frozenset(each.routing_key for each in bindings if each.source == REDELIVER_EXCHANGE)


def _at_desk(settings: Settings, work: Callable[[Desk], Awaitable[T]]) -> T:
    async def do() -> T:
        async with desk(settings) as at:
            return await work(at)

    return asyncio.run(do())


def _now_ms() -> int:
    return int(time.time() * 1000)


def _print(shown: str | Sequence[Text | object]) -> None:
    if isinstance(shown, str):
        print(shown)  # noqa: T201 - this is the command's output
        return
    console = Console(width=_WIDTH)
    for line in shown:
        console.print(line, soft_wrap=True, highlight=False)
