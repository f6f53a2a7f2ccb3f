from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from modelmq.errors import ConfigError, ProvisionError
from modelmq.provision.accounts import with_generations
from modelmq.provision.secret_files import ensure_secret, known_secrets
from modelmq.settings import Settings, TopologySettings


def test_made_once_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "user"
    made = ensure_secret(path.parent, "user")
    assert len(made) >= 32
    assert ensure_secret(path.parent, "user") == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["user"]
    assert ensure_secret(path.parent, "other") != made


def test_many_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "user"
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: ensure_secret(path.parent, "user"), range(40)))) == 1
    assert [each.name for each in path.parent.iterdir()] == ["user"]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "user"
    path.touch(0o600)
    with pytest.raises(ConfigError, match="must hold one line"):
        ensure_secret(tmp_path, "user")
    assert path.read_text() == ""


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((ConfigError, ProvisionError), match="file/user"):
        ensure_secret(tmp_path / "file", "user")


def test_two_users_of_an_account_have_a_file_each(tmp_path: Path) -> None:
    first, second = ensure_secret(tmp_path, "user"), ensure_secret(tmp_path, "user~2")
    assert known_secrets(["user", "user~2", "user~3"], tmp_path) == {"user": first, "user~2": second}
    assert (tmp_path / "user").read_text() == f"{first}\n"
    assert (tmp_path / "user~next").read_text() == f"user~2\n{second}\n"
    assert ensure_secret(tmp_path, "user~2") == second
    with pytest.raises(ProvisionError, match="The secret of user~3 has no place"):
        ensure_secret(tmp_path, "user~3")


def test_the_only_user_of_an_account_has_its_file_whatever_its_number(tmp_path: Path) -> None:
    secret = ensure_secret(tmp_path, "user~4")
    assert (tmp_path / "user").read_text() == f"user~4\n{secret}\n"


def test_the_generations_of_a_state_folder(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path), topology=TopologySettings(environment="t"))
    folder = tmp_path / "secrets"
    assert with_generations(settings) == settings.topology
    for user in ("ml-gateway.t", "ml-gateway.t~2", "ml-client.t~3", "ml-operator.t"):
        ensure_secret(folder, user)
    assert with_generations(settings).generations == {"gateway": (1, 2), "client": (3,)}
    told = TopologySettings(environment="t", generations={"gateway": (7,)})
    assert with_generations(msgspec.structs.replace(settings, topology=told)).generations["gateway"] == (7,)
