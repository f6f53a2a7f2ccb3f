"""Letters, selections and replays: whatever a caller wrote, a letter is read, keeps its id, and loses what is stale."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq import bundles
from modelmq.amqp import Delivery, Properties
from modelmq.amqp.frames import content
from modelmq.amqp.options import FRAME_MAX
from modelmq.amqp.properties import encode_properties
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.dead_letters.letter import Letter, Reader, digest_of, parts_of
from modelmq.dead_letters.paging import LARGEST_PAGE, PAGE_BYTES, next_page
from modelmq.dead_letters.replay import KEEP, RESET, Deadline, Refused, again
from modelmq.dead_letters.selection import Picker, Selection

NAMES = st.sampled_from(
    [
        "reason",
        "error",
        "attempts",
        "died-at",
        "deadline",
        "replays",
        "CC",
        "BCC",
        "x-death",
        "x-first-death-queue",
        "me",
    ]
) | st.text(max_size=8)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9) | st.binary(max_size=9)
VALUES = st.recursive(
    PLAIN | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)
TEXTS = st.none() | st.text(max_size=9)
PARTS = st.builds(
    RequestPart,
    correlation_id=st.text(max_size=5),
    deadline_ms=st.integers(0, 2**63 - 1),
    message_id=st.text(max_size=5),
    content_type=st.just("application/json"),
    headers=st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    body=st.binary(max_size=5),
)
BODIES = st.binary(max_size=30) | st.lists(PARTS, min_size=1, max_size=4).map(bundles.encode)
NOW_MS = 1_700_000_000_000


def made(body: bytes, headers: dict[str, Any] | None, key: str = "m", **properties: Any) -> Delivery:
    delivery = Delivery(1, "tag", 1, False, "ml-dead-letter-exchange", key)
    delivery._filled(encode_properties(Properties(headers=headers, **properties)), body, len(body))
    return delivery


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    told = {name: draw(TEXTS) for name in ("correlation_id", "reply_to", "message_id", "user_id", "expiration", "type")}
    content_type = draw(st.sampled_from([None, "application/json", BUNDLE]))
    return made(draw(BODIES), draw(st.none() | HEADERS), draw(st.text(max_size=9)), content_type=content_type, **told)


@given(deliveries(), st.sampled_from(["digits", "@expired", "@unrouted"]))
def test_everything_is_a_letter(delivery: Delivery, place: str) -> None:
    letter = Reader(place).read(delivery)
    assert letter.id.startswith(f"{place}:")
    assert (letter.requests, letter.body_bytes) == (len(parts_of(delivery)) or 1, len(delivery.body))


@given(st.binary(max_size=9), HEADERS, st.integers(0, 99), st.randoms())
def test_an_id_outlives_looks_which_count_and_sort_headers(
    body: bytes, headers: dict[str, Any], count: int, chance: random.Random
) -> None:
    names = list(headers)
    chance.shuffle(names)
    looked_at = {"x-delivery-count": count, **{name: headers[name] for name in names}}
    assert digest_of(made(body, headers)) == digest_of(made(body, looked_at))
    assert digest_of(made(body, headers)) != digest_of(made(body + b"!", headers))


@given(st.lists(st.sampled_from([b"a", b"b"]), max_size=12))
def test_equal_letters_have_ids_of_their_own_that_are_the_same_at_each_look(bodies: list[bytes]) -> None:
    looks = [[reader.read(made(body, {"mine": 1})).id for body in bodies] for reader in (Reader("m"), Reader("m"))]
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == len(bodies)


@given(deliveries(), st.sampled_from([KEEP, RESET, Deadline(keep=False, within_s=1.5)]))
def test_what_goes_again_is_the_request_and_nothing_stale(delivery: Delivery, deadline: Deadline) -> None:
    sent = again(delivery, deadline, NOW_MS, FRAME_MAX)
    if isinstance(sent, Refused):
        assert sent.why
        return
    parts = parts_of(delivery)
    assert [each.body for each in sent] == ([part.body for part in parts] or [delivery.body])
    for each in sent:
        properties, headers = each.properties, each.properties.headers or {}
        encode_properties(properties)
        assert each.routing_key == delivery.routing_key
        assert (properties.reply_to, properties.expiration, properties.user_id) == (None, None, None)
        assert properties.delivery_mode == 2
        assert not headers.keys() & {"reason", "error", "attempts", "died-at", "retries", "CC", "BCC"}
        assert not [name for name in headers if name.startswith("x-")]
        assert headers["replays"] >= 1
        if not deadline.keep:
            assert headers.get("deadline") == (None if deadline.within_s is None else NOW_MS + 1500)
        elif isinstance(headers.get("deadline"), int) and not isinstance(headers["deadline"], bool):
            assert not 0 <= headers["deadline"] <= NOW_MS


LETTERS = st.lists(
    st.builds(
        Letter,
        id=st.text(max_size=3),
        place=st.just("m"),
        routing_key=st.just("m"),
        reason=st.sampled_from(["a", "b"]),
        died_at_ms=st.none() | st.integers(NOW_MS - 5000, NOW_MS + 1000),
    ),
    max_size=12,
)
AGES = st.none() | st.floats(0, 6)


@given(st.sampled_from([8192, 65_536, FRAME_MAX]), st.integers(-3000, 3000), st.integers(0, 300))
def test_what_does_not_fit_into_a_frame_any_more_stays(frame_max: int, more: int, numbers: int) -> None:
    """Exactly what the connection would not take, however it came."""
    delivery = made(b"{}", {"s": "x" * (frame_max + more), "n": list(range(numbers))})
    became = again(delivery, RESET, NOW_MS, frame_max)
    if isinstance(became, Refused):
        assert became.why == "its properties no longer fit into a frame"
        roomy = again(delivery, RESET, NOW_MS, 2**31)
        assert not isinstance(roomy, Refused)
        with pytest.raises(ValueError, match="properties"):
            content(1, encode_properties(roomy[0].properties), b"", frame_max)
    else:
        for each in became:
            content(1, encode_properties(each.properties), each.body, frame_max)


@given(LETTERS, st.none() | st.sampled_from(["a", "b"]), AGES, AGES, st.none() | st.integers(1, 5))
def test_a_selection_picks_the_first_of_those_that_fit(
    letters: list[Letter], reason: str | None, older_s: float | None, newer_s: float | None, limit: int | None
) -> None:
    picker = Picker(Selection(reason=reason, older_than_s=older_s, newer_than_s=newer_s, limit=limit), NOW_MS)
    picked = [letter for letter in letters if picker.picks(letter)]
    fit = [letter for letter in letters if reason is None or letter.reason == reason]
    if older_s is not None or newer_s is not None:
        aged = [(letter, (NOW_MS - letter.died_at_ms) / 1000) for letter in fit if letter.died_at_ms is not None]
        fit = [
            each
            for each, age_s in aged
            if (older_s is None or age_s >= older_s) and (newer_s is None or age_s < newer_s)
        ]
    assert picker.matched == len(fit)
    assert picked == fit[:limit]


@given(st.integers(1, LARGEST_PAGE), st.integers(0, 2**28))
def test_a_page_never_holds_more_than_agreed_of_what_is_as_large_as_what_was_seen(size: int, largest: int) -> None:
    page = next_page(size, largest)
    assert 1 <= page <= min(2 * size, LARGEST_PAGE)
    assert page == 1 or page * largest <= PAGE_BYTES
