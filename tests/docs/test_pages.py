"""What pages point to is there: files of the project, and every file that a station of the path is said to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import NAMES, PAGES, ROOT, links

PAGE_LINKS = [(page, link) for page in NAMES for link in links(page)]


@pytest.mark.parametrize(("page", "link"), PAGE_LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists()


def test_every_page_is_in_the_index() -> None:
    index = {(ROOT / "docs" / link).resolve() for link in links("docs/README.md")}
    pages = {page for page in PAGES if page.parent == ROOT / "docs" and page.name != "README.md"}
    assert pages <= index


STATIONS = re.findall(r"`([a-z_]+(?:/[a-z_]+\.py|\.py|/))`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))


@pytest.mark.parametrize("name", sorted(set(STATIONS)))
def test_files_named_by_the_architecture_exist(name: str) -> None:
    assert Path(ROOT, "src", "modelmq", name).exists()


def test_a_newcomer_sees_the_essentials_in_forty_lines() -> None:
    head = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:40])
    for essential in ("make up", "make test", "gateway", "worker", "RabbitMQ", "──▶"):
        assert essential in head
