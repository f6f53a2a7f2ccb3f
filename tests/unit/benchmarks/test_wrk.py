from __future__ import annotations

import pytest

from benchmarks.wrk import read_output

LINE = (
    'measured {"requests": 900, "duration_us": 3000000, "status": 2, "connect": 1, "read": 3, "write": 0, '
    '"timeout": 4, "p50_us": 1500, "p99_us": 20000}'
)


def test_what_wrk_counted_is_read_among_its_own_lines() -> None:
    run = read_output(["Running 3s test", "  900 requests in 3.00s", LINE])
    assert run.rate == 300
    assert run.errors == 10
    assert (run.p50_ms, run.p99_ms) == (1.5, 20)


def test_no_measurement_is_an_error() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        read_output(["Running 3s test"])
