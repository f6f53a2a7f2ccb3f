from __future__ import annotations

import pytest

from modelmq.control import LaneReport, ModelReport, WorkerReport
from modelmq.gateway.backlog import Backlogs, QueueLimits
from modelmq.messages import Lane
from modelmq.metadata import BatchPolicy, ModelMetadata, Signature

LIMITS = QueueLimits(messages=100, bytes=1000)


def version(
    name: str = "m", number: str = "1", *, per_s: float = 100.0, state: str = "ready", lately: float = 0.0
) -> ModelReport:
    known = ModelMetadata(name, number, Signature("python", (), (), batched=True), BatchPolicy(8))
    return ModelReport(name, number, state, metadata=known, capacity_per_s=per_s, completed_per_s=lately)  # type: ignore[arg-type]


def lane(ready: int | None, held: int = 0, *, of: Lane = "interactive", per_message: float = 1.0) -> LaneReport:
    return LaneReport("m", of, ready, held, per_message)


class Gateway:
    """One gateway's view, with the requests of its own that wait."""

    def __init__(self) -> None:
        self.backlogs = Backlogs(LIMITS)
        self.waiting = 0

    def hears(
        self, *lanes: LaneReport, now_s: float = 0.0, worker: str = "w", models: tuple[ModelReport, ...] = (version(),)
    ) -> None:
        self.backlogs.heard(WorkerReport(worker, "default", models, lanes), lambda _: self.waiting, now_s)

    def wait_s(self, now_s: float = 0.0, of: Lane = "interactive") -> float:
        return self.backlogs.wait_s("m", of, now_s)

    def sends(self, count: int = 1, now_s: float = 0.0, size: int = 1, of: Lane = "interactive") -> None:
        for _ in range(count):
            self.backlogs.sent("m", of, size, now_s)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_nothing_is_predicted_of_what_nobody_told(gateway: Gateway) -> None:
    gateway.sends(1000)
    assert gateway.wait_s() == 0


def test_an_idle_model_makes_nobody_wait(gateway: Gateway) -> None:
    gateway.hears()
    assert gateway.wait_s() == 0


def test_a_model_that_has_not_shown_what_it_can_do_is_not_slow(gateway: Gateway) -> None:
    gateway.hears(lane(5000, 16), models=(version(per_s=0.0),))
    assert gateway.wait_s() == 0


def test_what_is_ahead_by_what_can_be_done(gateway: Gateway) -> None:
    gateway.waiting = 250
    gateway.hears(lane(234, 16))
    assert gateway.wait_s() == pytest.approx((250 + 8) / 100)  # and its own batch


def test_a_message_may_hold_several_requests(gateway: Gateway) -> None:
    gateway.waiting = 92
    gateway.hears(lane(20, 12, per_message=4.0))
    assert gateway.wait_s() == pytest.approx((92 + 8) / 100)


def test_a_burst_between_two_reports_counts(gateway: Gateway) -> None:
    gateway.hears()
    gateway.sends(92)
    assert gateway.wait_s() == pytest.approx(1.0)
    assert gateway.wait_s(0.5) == pytest.approx(0.5)  # half a second's work is done meanwhile
    assert gateway.wait_s(10.0) == 0
    gateway.sends(8, 10.0)
    assert gateway.wait_s(10.0) == pytest.approx(0.16)  # time without work is not saved up


def test_a_report_takes_the_place_of_what_was_reckoned(gateway: Gateway) -> None:
    gateway.hears()
    gateway.sends(1000)
    gateway.hears(now_s=1.0)
    assert gateway.wait_s(1.0) == 0


def test_a_depth_that_is_not_known_changes_nothing(gateway: Gateway) -> None:
    gateway.hears()
    gateway.sends(192)
    gateway.hears(lane(None, 16), now_s=0.0)
    assert gateway.wait_s() == pytest.approx(2.0)


def test_workers_add_up_and_share_the_queue(gateway: Gateway) -> None:
    gateway.waiting = 300
    gateway.hears(lane(284, 16), worker="one")
    gateway.hears(lane(284, 16), worker="two", models=(version(per_s=200.0),))
    assert gateway.wait_s() == pytest.approx((284 + 32 + 8) / 300)


def test_a_new_worker_is_taken_to_be_like_the_others(gateway: Gateway) -> None:
    gateway.waiting = 192
    gateway.hears(lane(192), worker="one")
    gateway.hears(lane(192), worker="new", models=(version(per_s=0.0),))
    assert gateway.wait_s() == pytest.approx(1.0)


def test_who_is_gone_does_nothing_and_holds_nothing(gateway: Gateway) -> None:
    gateway.waiting = 192
    gateway.hears(lane(192), worker="one", now_s=0.0)
    gateway.hears(lane(192), worker="two", now_s=3.0)
    gateway.backlogs.tick(3.1)
    gateway.hears(lane(192), worker="two", now_s=3.1)
    assert gateway.wait_s(3.1) == pytest.approx(2.0)
    gateway.backlogs.tick(100.0)
    gateway.sends(1000, 100.0)
    assert gateway.wait_s(100.0) == 0


def test_a_model_that_is_loading_again_has_no_speed(gateway: Gateway) -> None:
    gateway.hears(lane(500, 16), models=(version(state="loading"),))
    assert gateway.wait_s() == 0


def test_the_version_that_is_asked_sets_the_speed(gateway: Gateway) -> None:
    old, new = version(number="1", per_s=1000.0, lately=0.0), version(number="2", per_s=100.0, lately=90.0)
    gateway.waiting = 92
    gateway.hears(lane(92), models=(old, new))
    assert gateway.wait_s() == pytest.approx(1.0)
    half = version(number="1", per_s=100.0, lately=90.0)
    gateway.hears(lane(92), models=(half, new))
    assert gateway.wait_s() == pytest.approx(0.5)


def test_one_of_two_gateways_counts_twice(gateway: Gateway) -> None:
    gateway.waiting = 100
    gateway.hears(lane(186, 16))
    before_s = gateway.wait_s()
    gateway.sends(100)
    assert gateway.wait_s() - before_s == pytest.approx(2.0)


def test_while_nothing_waits_nobody_counts_for_others(gateway: Gateway) -> None:
    gateway.hears(lane(0, 4))
    gateway.sends(100)
    assert gateway.wait_s() < 2.0


def test_bulk_slows_interactive_by_its_share_only(gateway: Gateway) -> None:
    gateway.waiting = 87
    gateway.hears(lane(87), lane(10_000, of="bulk"))
    assert gateway.wait_s() == pytest.approx(1.0)


def test_bulk_waits_for_what_is_interactive_or_for_its_share(gateway: Gateway) -> None:
    gateway.hears(lane(500), lane(42, of="bulk"))
    assert gateway.wait_s(of="bulk") == pytest.approx((500 + 50) / 100)
    gateway.hears(lane(100_000), lane(42, of="bulk"))
    assert gateway.wait_s(of="bulk") == pytest.approx(50 / 5)


def test_what_is_not_known_to_have_room_may_be_full(gateway: Gateway) -> None:
    assert gateway.backlogs.may_be_full("m", "interactive")
    gateway.hears(lane(None, 16))
    assert gateway.backlogs.may_be_full("m", "interactive")


def test_a_queue_below_its_limit_is_not_full(gateway: Gateway) -> None:
    gateway.hears()
    assert not gateway.backlogs.may_be_full("m", "interactive")
    gateway.hears(lane(99, 16))
    assert not gateway.backlogs.may_be_full("m", "interactive")
    gateway.hears(lane(100, 16))
    assert gateway.backlogs.may_be_full("m", "interactive")


def test_what_was_sent_since_may_have_filled_it(gateway: Gateway) -> None:
    gateway.hears()
    gateway.sends(100)
    assert gateway.backlogs.may_be_full("m", "interactive")
    gateway.hears()
    assert not gateway.backlogs.may_be_full("m", "interactive")


def test_large_bodies_fill_a_queue_too(gateway: Gateway) -> None:
    gateway.hears(lane(9, 16))
    gateway.sends(1, size=100)
    assert gateway.backlogs.may_be_full("m", "interactive")
