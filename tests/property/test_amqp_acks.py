"""The tracker of acknowledgements against a broker that knows which of its deliveries are unacknowledged."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from modelmq.amqp.acks import AckTracker

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["settle", "forget", "requeue"]), st.integers(0, 50)),
        st.tuples(st.sampled_from(["deliver", "take"]), st.just(0)),
    ),
    max_size=120,
)


class Broker:
    """Raises, as RabbitMQ closes the channel, for a tag that is not unacknowledged."""

    def __init__(self) -> None:
        self.last = 0
        self.unacked: list[int] = []
        self.acked: list[int] = []

    def deliver(self) -> int:
        self.last += 1
        self.unacked.append(self.last)
        return self.last

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.unacked, f"406 unknown delivery tag {tag}"
        gone = [each for each in self.unacked if each == tag or (multiple and each < tag)]
        self.acked += gone
        self.unacked = [each for each in self.unacked if each not in gone]

    def nack(self, tag: int) -> None:
        self.unacked.remove(tag)


@settings(deadline=None)  # the machine may be busy
@given(STEPS)
def test_exactly_what_was_settled_is_acknowledged(steps: list[tuple[str, int]]) -> None:
    broker, tracker = Broker(), AckTracker()
    working: list[int] = []
    settled: set[int] = set()
    for what, which in steps:
        if what == "deliver":
            tag = broker.deliver()
            tracker.delivered(tag)
            working.append(tag)
        elif what == "take":
            taken = tracker.take()
            for tag, multiple in taken:
                broker.ack(tag, multiple)
            assert settled == set(broker.acked), "all that is settled, and nothing else"
            singles = [tag for tag, multiple in taken if not multiple]
            assert sum(multiple for _, multiple in taken) <= 1
            oldest = min(working, default=broker.last + 1)
            assert sum(tag < oldest for tag in singles) <= 1, "a prefix is one frame"
        elif working:
            tag = working.pop(which % len(working))
            if what == "settle":
                tracker.settle(tag)
                settled.add(tag)
            else:
                # What is given back must not be named any more, so what is settled is acknowledged first.
                for each, multiple in tracker.take():
                    broker.ack(each, multiple)
                tracker.forget(tag)
                broker.nack(tag)
    for tag, multiple in tracker.take():
        broker.ack(tag, multiple)
    assert sorted(broker.acked) == sorted(settled)
    assert sorted(broker.unacked) == sorted(working)
    assert len(broker.acked) == len(set(broker.acked))
