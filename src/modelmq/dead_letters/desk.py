"""Lists, shows, replays and purges the letters of one place, as the operator's user.

What is replayed leaves its queue only after the broker has confirmed it in another: killed in between, we leave it in
both, never in none. One desk at a time works from a state folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from modelmq.amqp import Channel, Connection, ConnectionOptions, Delivery, Properties, Settled, connect
from modelmq.broker.secrets import secret_file
from modelmq.dead_letters.letter import Letter, Reader, queue_of
from modelmq.dead_letters.looking import Handle, look
from modelmq.dead_letters.replay import Again, Deadline, Refused, again
from modelmq.dead_letters.selection import Picker, Selection
from modelmq.errors import BrokerError, ChannelClosed, ConfigError, LettersError
from modelmq.process.broker_access import connection_options, with_own_secret
from modelmq.settings import Settings
from modelmq.topology_names import REDELIVER_EXCHANGE, user_name

CONFIRM_S = 30.0
"""For RabbitMQ to confirm a page of replays."""
_TURN_S = 30.0
_PAUSE_S = 0.05
_LOCK = "dead-letters.lock"
_REFUSED = 403
_WORST_FIRST = (Settled.LOST, Settled.RETURNED, Settled.NACKED)
_NOT_TAKEN = {
    Settled.NACKED: "the queue of its model is full",
    Settled.RETURNED: "no queue takes it: run modelmq topology apply",
    Settled.LOST: "RabbitMQ has not confirmed it",
}


class Listing(NamedTuple):
    """`letters` are those picked; `matched` counts also those beyond the limit, `total` all that the queue held."""

    letters: tuple[Letter, ...]
    matched: int
    total: int


class Shown(NamedTuple):
    """One letter whole."""

    letter: Letter
    properties: Properties
    body: bytes


class Replayed(NamedTuple):
    """What became of the letters that were picked: how many left, and why how many did not."""

    letters: int
    requests: int
    kept: Counter[str]


class Order(NamedTuple):
    """How to replay. `takers` are the routing keys that some queue takes, where they are known: others are kept."""

    deadline: Deadline
    now_ms: int
    takers: Collection[str] | None = None
    dry_run: bool = False
    """Nothing is published, and nothing leaves."""


class Desk:
    """Works over a connection of its own; replays go over a second, which the broker may block."""

    def __init__(self, connection: Connection, options: ConnectionOptions) -> None:
        self._connection = connection
        self._options = options

    async def list_letters(self, place: str, selection: Selection, now_ms: int) -> Listing:
        """The letters that the selection picks, oldest first. Raises LettersError, BrokerError, as all here do."""
        reader, picker = Reader(place), Picker(selection, now_ms)
        found: list[Letter] = []

        async def see(page: Sequence[Delivery]) -> Collection[int]:
            found.extend(letter for letter in map(reader.read, page) if picker.picks(letter))
            return ()

        total = await self._look(place, see)
        return Listing(tuple(found), picker.matched, total)

    async def show(self, place: str, name: str) -> Shown:
        """The letter of this id."""
        reader = Reader(place)
        found: list[Shown] = []

        async def see(page: Sequence[Delivery]) -> Collection[int]:
            for delivery in page:
                letter = reader.read(delivery)
                if letter.id == name:
                    found.append(Shown(letter, _properties(delivery), delivery.body))
            return ()

        await self._look(place, see)
        if not found:
            raise LettersError(f"There is no letter {name}: see modelmq dead list {place}.")
        return found[0]

    async def purge(self, place: str, selection: Selection, now_ms: int) -> int:
        """Throws away the letters that the selection picks; how many."""
        reader, picker = Reader(place), Picker(selection, now_ms)
        purged = 0

        async def see(page: Sequence[Delivery]) -> Collection[int]:
            nonlocal purged
            gone = [delivery.delivery_tag for delivery in page if picker.picks(reader.read(delivery))]
            purged += len(gone)
            return gone

        await self._look(place, see)
        return purged

    async def replay(self, place: str, selection: Selection, order: Order) -> Replayed:
        """Publishes the letters that the selection picks to the redeliver exchange, and lets go what is confirmed."""
        publisher = await connect(self._options)
        try:
            channel = await publisher.channel()
            await channel.confirm_select()
            replay = _Replay(Reader(place), Picker(selection, order.now_ms), order, channel)
            await self._look(place, replay.see)
        finally:
            await publisher.close()
        return Replayed(replay.letters, replay.requests, replay.kept)

    async def _look(self, place: str, handle: Handle) -> int:
        try:
            return await look(self._connection, queue_of(place), handle)
        except ChannelClosed as error:
            if error.reply_code != _REFUSED:
                raise
            user = self._options.credentials().username
            raise LettersError(f"The user {user} may not handle dead letters: log in as the operator.") from error


class _Replay:
    """One replay, page by page."""

    def __init__(self, reader: Reader, picker: Picker, order: Order, channel: Channel) -> None:
        self._reader, self._picker, self._order, self._channel = reader, picker, order, channel
        self._stuck = False
        self.letters = self.requests = 0
        self.kept: Counter[str] = Counter()

    async def see(self, page: Sequence[Delivery]) -> Collection[int]:
        """The tags of the letters whose every request is confirmed."""
        gone: list[int] = []
        made = {each.delivery_tag: self._made(each) for each in page if self._picker.picks(self._reader.read(each))}
        sendable = {tag: messages for tag, messages in made.items() if not isinstance(messages, Refused)}
        self.kept.update(refused.why for refused in made.values() if isinstance(refused, Refused))
        every = [each for messages in sendable.values() for each in messages]
        settled = iter([Settled.ACKED] * len(every) if self._order.dry_run else await self._published(every))
        for tag, messages in sendable.items():
            ends = {next(settled) for _ in messages}
            failed = ends - {Settled.ACKED}
            if failed:
                self._stuck |= Settled.LOST in failed
                self.kept[_NOT_TAKEN[min(failed, key=_WORST_FIRST.index)]] += 1
            else:
                gone.append(tag)
                self.letters += 1
                self.requests += len(messages)
        return () if self._order.dry_run else gone

    def _made(self, delivery: Delivery) -> Sequence[Again] | Refused:
        if self._stuck:  # nobody needs to wait for each page that RabbitMQ does not take
            return Refused(_NOT_TAKEN[Settled.LOST])
        order = self._order
        if order.takers is not None and delivery.routing_key not in order.takers:
            return Refused("no model takes its routing key any more")
        return again(delivery, order.deadline, order.now_ms, self._channel.connection.frame_max)

    async def _published(self, messages: Sequence[Again]) -> list[Settled]:
        """What became of each, LOST where the broker does not say in time."""
        loop = asyncio.get_running_loop()
        ends: list[asyncio.Future[Settled]] = [loop.create_future() for _ in messages]
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(CONFIRM_S):
                for message, end in zip(messages, ends, strict=True):
                    self._channel.publish(REDELIVER_EXCHANGE, *message, mandatory=True, on_settled=end.set_result)
                    await self._channel.connection.drain()
                if ends:
                    await asyncio.wait(ends)
        return [end.result() if end.done() else Settled.LOST for end in ends]


def _properties(delivery: Delivery) -> Properties:
    try:
        return delivery.properties
    except BrokerError:
        return Properties()


@contextlib.asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """Logged in as the operator. Raises ConfigError without its secret, BrokerError without a broker."""
    options = operator_options(settings)
    async with _alone(Path(settings.state_dir)):
        connection = await connect(options)
        try:
            yield Desk(connection, options)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Two who look at one time would each see a part. Without a folder to write to, only the broker tells of others."""
    try:
        file = (folder / _LOCK).open("a")
    except OSError:
        yield
        return
    with file:
        try:
            async with asyncio.timeout(_TURN_S):
                while not _locked(file.fileno()):  # noqa: ASYNC110 - a lock tells nobody
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError as error:
            raise LettersError(
                "Another modelmq dead is at work from this state folder: wait until it is done."
            ) from error
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def operator_options(settings: Settings) -> ConnectionOptions:
    """As the operator, with the login that the settings name, else the secret in the state folder. ConfigError."""
    broker = settings.broker
    user = broker.username or user_name("operator", settings.topology.environment)
    named = broker.password or broker.password_file or broker.auth == "external"
    path = secret_file(settings.state_dir, user)
    if not named and not path.exists():
        raise ConfigError(
            f"The user {user} has no secret in {path.parent}: run modelmq topology apply first, "
            "or name its file with broker.password_file."
        )
    return connection_options(with_own_secret(settings, user), user, "modelmq dead")
