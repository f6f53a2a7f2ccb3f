from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.processes import (
    cpu_s,
    cpu_ticks_in_stat,
    family_of,
    parent_in_stat,
    pss_kib_in_rollup,
    pss_mb,
    rss_kib_in_status,
)

STAT = "42 (a (strange) name) S 7 42 42 0 -1 4194560 100 0 0 0 300 25 0 0 20 0 1 0 100 1000 10"


def test_a_command_name_may_hold_spaces_and_parentheses() -> None:
    assert parent_in_stat(STAT) == 7
    assert cpu_ticks_in_stat(STAT) == 325


def test_this_processs_own_lines_are_read_right() -> None:
    assert parent_in_stat(Path("/proc/self/stat").read_text()) == os.getppid()
    assert pss_mb([os.getpid()]) > 1
    assert cpu_s([os.getpid()]) > 0
    assert os.getpid() in family_of(os.getppid())


def test_pss_is_the_line_of_that_very_name() -> None:
    rollup = "00400000-7fff rollup\nRss: 900 kB\nPss:                123 kB\nPss_Dirty: 5 kB\n"
    assert pss_kib_in_rollup(rollup) == 123
    with pytest.raises(ValueError, match="no Pss line"):
        pss_kib_in_rollup("Pss_Dirty: 5 kB\n")


def test_processes_that_are_gone_count_nothing() -> None:
    gone = 2**22 + 1  # above the kernel's largest pid
    assert cpu_s([gone]) == 0
    assert family_of(gone) == []


def test_resident_memory_is_read_from_the_status() -> None:
    assert rss_kib_in_status("Name:\tbeam\nVmRSS:\t   1234 kB\nThreads:\t1\n") == 1234
    assert rss_kib_in_status("Name:\tzombie\nThreads:\t1\n") == 0
