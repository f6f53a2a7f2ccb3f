"""`plan --out` and `apply PLANFILE` on a real broker: what was looked at is what is done, or nothing is."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PolicyInfo

if TYPE_CHECKING:
    from conftest import Cli, Proxy

pytestmark = pytest.mark.broker


@pytest.fixture
def kept(cli: Cli, tmp_path: Path) -> Path:
    file = tmp_path / "kept.json"
    assert cli("plan", "--out", str(file)).status == 2
    return file


def test_a_kept_plan_is_applied_without_the_models(cli: Cli, kept: Path) -> None:
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [each for each in kept.parent.iterdir() if each.name.startswith(".kept")] == []
    cli.serve()
    said = cli("apply", str(kept))
    assert (said.status, said.out.splitlines()[-1][:12]) == (0, "105 written:")
    cli.serve("digits")
    assert cli("drift").out == "No drift.\n"
    assert "password" not in kept.read_text()


def test_it_is_refused_when_it_was_applied_already(cli: Cli, kept: Path) -> None:
    assert cli("apply", str(kept)).status == 0
    said = cli("apply", str(kept))
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f'modelmq: The virtual host "{cli.settings.broker.vhost}" is no longer as it was when the plan was made: '
        "plan again.\n"
    )


def a_policy(cli: Cli, admin: Management) -> None:
    admin.put_policy(cli.settings.broker.vhost, PolicyInfo("theirs", "bulk$", "queues", {"max-length": 3}, 11))


def a_binding(cli: Cli, admin: Management) -> None:
    binding = BindingInfo("ml-model-exchange", "ml-model.digits.bulk", "queue", "by.hand")
    admin.add_binding(cli.settings.broker.vhost, binding)


def a_password(cli: Cli, admin: Management) -> None:
    admin.put_user(f"ml-client.{cli.settings.topology.environment}", "", ())


@pytest.mark.parametrize("move", [a_policy, a_binding, a_password])
def test_it_is_refused_when_the_state_moved(
    cli: Cli, admin: Management, proxy: Proxy, tmp_path: Path, move: Callable[[Cli, Management], None]
) -> None:
    assert cli("apply").status == 0
    cli.serve("digits", "fraud")
    file = tmp_path / "kept.json"
    assert cli("plan", "--out", str(file)).status == 2
    move(cli, admin)
    cli.configure(management_url=proxy.url)
    said = cli("apply", str(file))
    assert said.status == 1
    assert "is no longer as it was when the plan was made: plan again." in said.err
    assert proxy.writes == []


def test_messages_and_queues_of_others_do_not_move_it(
    cli: Cli, admin: Management, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    assert cli("apply").status == 0
    cli.serve("digits", "fraud")
    file = tmp_path / "kept.json"
    assert cli("plan", "--out", str(file)).status == 2
    publish("ml-model.digits.bulk")
    admin.put_queue(cli.settings.broker.vhost, "mine", {})
    assert cli("apply", str(file)).status == 0


def test_a_kept_plan_deletes_without_asking_again(cli: Cli, admin: Management, tmp_path: Path) -> None:
    cli.serve("digits", "old")
    assert cli("apply").status == 0
    cli.serve("digits")
    file = tmp_path / "kept.json"
    assert cli("plan", "--out", str(file)).status == 2
    assert cli("apply", str(file)).status == 0
    assert "ml-model.old.bulk" not in {queue.name for queue in admin.queues(cli.settings.broker.vhost)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not a plan"),
        ("{}", "is not a plan"),
        ("é", "is not a plan"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_plan(cli: Cli, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    said = cli("apply", str(file))
    assert said.status == 2
    assert words in said.err


def test_a_plan_of_another_virtual_host(cli: Cli, kept: Path) -> None:
    cli.configure(vhost="ml-other")
    said = cli("apply", str(kept))
    assert said.status == 2
    assert f'is for the virtual host "{cli.settings.broker.vhost}", not for "ml-other"' in said.err


def test_a_file_that_cannot_be_written(cli: Cli) -> None:
    said = cli("plan", "--out", "/nowhere/kept.json")
    assert said.status == 1
    assert "The file /nowhere/kept.json cannot be written: No such file or directory." in said.err
