from __future__ import annotations

import os
from pathlib import Path

from modelmq.supervisor import log_files


def write(path: Path, *texts: str) -> None:
    for text in texts:
        with log_files.opened(path) as log:
            os.write(log, text.encode())


def test_each_start_appends(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "worker.log"
    write(path, "one\n", "two\n")
    lines = path.read_text().splitlines()
    assert lines[1::2] == ["one", "two"]
    assert all(line.startswith("--- started 20") for line in lines[::2])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_last_line_is_what_it_said_last(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    write(path, "first\nsecond\n\n")
    assert log_files.last_line(path) == "second"


def test_of_a_json_line_it_is_the_error(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    write(path, '{"event":"ModelLoadFailed","error":"no such file"}\n')
    assert log_files.last_line(path) == "no such file"
    write(path, '{"event":"ServiceStopping","reason":"told to"}\n')
    assert log_files.last_line(path) == "told to"


def test_words_before_the_start_are_not_its_last(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    write(path, "of an earlier run\n", "")
    assert log_files.last_line(path) == ""
    assert log_files.last_line(tmp_path / "absent.log") == ""


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    write(path, "ä" * 100_000 + "\nlast\n")
    assert log_files.last_line(path) == "last"


def test_a_long_file_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    with log_files.opened(path) as log:
        os.write(log, b"x" * 100)
        log_files.shorten(path, longest_bytes=1000)
        assert path.stat().st_size > 100
        log_files.shorten(path, longest_bytes=50)
        os.write(log, b"after\n")
    assert path.read_bytes() == b"after\n"
    assert (tmp_path / "worker.log.1").read_bytes().endswith(b"x" * 100)
    log_files.shorten(tmp_path / "absent")
