"""`modelmq dead …` as it is typed: what it prints, with which status it ends, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]

THREE_DAYS_MS = (3 * 24 * 60 + 1) * 60_000
DIGITS, LANE = "ml-dead-letter.digits", "ml-model.digits.interactive"


async def said(installation: Any, command: str, *arguments: str, **options: Any) -> Any:
    return await asyncio.to_thread(installation.dead, command, *arguments, **options)


async def ids(installation: Any, place: str) -> list[str]:
    (found,) = (await said(installation, "list", place, "-o", "json")).json["places"]
    return [letter["id"] for letter in found["letters"]]


async def test_from_list_over_show_to_replay_and_purge(installation: Any, office: Any) -> None:
    assert (await said(installation, "list")).out == "No dead letters.\n"
    told = {"deadline": 5, "mine": ["\x1b[31m", b"\x01"], "died-at": int(time.time() * 1000) - THREE_DAYS_MS}
    await office.letters("digits", b'{"n": 1}', b'{"n": 2}', b"\xff\x00", **told)
    await office.letters("other", b'{"n": 4}', reason="another")
    listed = await said(installation, "list")
    assert (listed.status, listed.err) == (0, "")
    assert [line.split()[:4] for line in listed.out.splitlines()][1][1:] == ["model_process_died", "3d", "passed"]
    assert len(listed.out.splitlines()) == 5
    first, _, binary = await ids(installation, "digits")
    shown = await said(installation, "show", first)
    assert "model_process_died" in shown.out
    assert '"n": 1' in shown.out
    assert "\x1b" not in shown.out
    as_json = (await said(installation, "show", first, "-o", "json")).json
    assert (as_json["body"], as_json["headers"]["mine"]) == ({"n": 1}, ["\x1b[31m", "01"])
    assert as_json["letter"]["attempts"] == 3
    assert "ff 00" in (await said(installation, "show", binary)).out
    kept = await said(installation, "replay", first)
    assert (kept.status, kept.out.splitlines()[0]) == (1, "Replayed 0 letters of digits.")
    assert "would only expire again" in kept.out
    assert (await said(installation, "replay", first, "--deadline", "model")).out == "Replayed 1 letter of digits.\n"
    assert [each.body for each in await office.take(LANE)] == [b'{"n": 1}']
    gone = await said(installation, "replay", first, "--deadline", "model")
    assert (gone.status, gone.err) == (1, "modelmq: 1 of the letters named is not in digits (any more).\n")
    refused = await said(installation, "purge", "digits", "other")
    assert refused.status == 1
    assert "throws away 2 letters of digits, 1 letter of other; say --yes" in refused.err
    assert (await office.count(DIGITS), await office.count("ml-dead-letter.other")) == (2, 1)
    purged = await said(installation, "purge", "digits", "other", "--reason", "model_process_died", "--yes")
    assert purged.out == "Purged 2 letters of digits, 0 letters of other.\n"
    assert await office.count("ml-dead-letter.other") == 1


async def test_what_the_broker_gives_up_is_a_letter_with_the_brokers_reason(installation: Any, office: Any) -> None:
    await office.put("ml-model-exchange", "digits.1", b"{}", message_id="rejected", headers={"reason": "forged"})
    await office.put("ml-model-exchange", "digits.1", b"{}", message_id="late", expiration="1")
    channel = await office.connection.channel()
    await channel.consume(LANE, lambda delivery: channel.nack(delivery.delivery_tag, requeue=False))
    await office.until(DIGITS, 1)
    await office.until("ml-expired", 1)
    await channel.close()
    found = {each["place"]: each["letters"] for each in (await said(installation, "list", "-o", "json")).json["places"]}
    (rejected,), (late,) = found["digits"], found["@expired"]
    assert (rejected["reason"], rejected["request_id"], rejected["attempts"]) == ("rejected", "rejected", None)
    assert (late["reason"], late["request_id"]) == ("expired", "late")
    assert rejected["died_at_ms"] > 0
    assert (await said(installation, "replay", "@expired", "digits")).status == 0
    again = await office.take(LANE)
    assert {each.properties.message_id for each in again} == {"rejected", "late"}
    assert {msgspec.json.encode(each.properties.headers) for each in again} == {b'{"replays":1}'}


async def test_a_request_whose_model_is_gone_is_kept(installation: Any, office: Any) -> None:
    await office.put("ml-redeliver-exchange", "gone.1", b"{}")
    kept = await said(installation, "replay", "@unrouted")
    assert kept.status == 1
    assert "no model takes its routing key any more" in kept.out
    assert await office.count("ml-unrouted") == 1


async def test_who_agrees_purges_what_was_counted(
    installation: Any, office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelmq.cli import dead  # noqa: PLC0415 - as the command does

    await office.letters("digits", b"1", b"2")
    loop = asyncio.get_running_loop()

    def agree(*_: Any) -> str:
        asyncio.run_coroutine_threadsafe(office.letters("digits", b"3"), loop).result(30)
        return "y"

    monkeypatch.setattr(dead, "_asked", lambda: True)
    monkeypatch.setattr(dead.Console, "input", agree)
    assert (await said(installation, "purge", "digits")).out == "Purged 2 letters of digits.\n"
    assert [each.body for each in await office.take(DIGITS)] == [b"3"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("list", "nobody"), 1, "There is no queue ml-dead-letter.nobody: see modelmq dead list for"),
        (("list", "no/model"), 2, '"no/model" is neither a model, @expired or @unrouted, nor a letter'),
        (("show", "digits"), 2, '"digits" is no letter\'s id'),
        (("show", "digits:000000000000"), 1, "There is no letter digits:000000000000: see modelmq dead list digits."),
        (("replay", "digits", "digits:000000000000"), 2, "Name either letters of digits or digits itself"),
        (
            ("replay", "digits", "--deadline", "soon"),
            2,
            '--deadline takes a time such as 90s, 15m, 2h or 7d, not "soon"',
        ),
        (("list", "--older-than", "-5"), 2, "--older-than takes a time"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(
    installation: Any, office: Any, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    answer = await said(installation, *arguments)
    assert answer.status == status
    assert answer.err.startswith(f"modelmq: {sentence}")
    assert answer.err.count("\n") == 1


async def test_without_secret_or_broker(installation: Any, tmp_path: Path) -> None:
    answer = await said(installation, "list", "digits", "--state-dir", str(tmp_path / "empty"))
    assert answer.status == 2
    assert "has no secret in" in answer.err
    assert "run modelmq topology apply first" in answer.err
    away = await said(installation, "list", "digits", "--set", "broker.hosts=127.0.0.1:1")
    assert (away.status, away.err.count("\n")) == (4, 1)
    assert "No RabbitMQ could be reached" in away.err
    deaf = await said(installation, "list", "--set", "broker.management_url=http://127.0.0.1:1")
    assert deaf.err.startswith("modelmq: Name the model: which there are cannot be asked.")
    secrets = Path(installation.settings.state_dir) / "secrets"
    gateway = next(path for path in secrets.iterdir() if path.name.startswith("ml-gateway"))
    shutil.copy(gateway, tmp_path / "password")
    (tmp_path / "password").chmod(0o600)
    login = ("--set", f"broker.username={gateway.name}", "--set", f"broker.password_file={tmp_path / 'password'}")
    other = await said(installation, "list", "digits", *login)
    assert other.status == 1
    assert other.err.startswith(f"modelmq: The user {gateway.name} may not handle dead letters")
