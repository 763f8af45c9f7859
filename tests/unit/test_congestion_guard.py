"""A user's own algorithm: how it becomes known, and that it cannot do harm. M-38."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from tunstack.congestion import INFINITE, Algorithms, CongestionControl, Cubic, RateSample, Reno
from tunstack.congestion.guard import Guard

MSS = 1000
EVENTS: dict[str, tuple[object, ...]] = {
    "on_start": (20_000, 10_000, 1),
    "on_restart": (True, 1),
    "on_ack": (MSS, 5 * MSS, 100_000, 1, True),
    "on_rate": (RateSample(),),
    "on_congestion": (5 * MSS, 1),
    "on_rto": (5 * MSS, 1),
    "on_recovery_exit": (5 * MSS, 1),
    "on_spurious": (1,),
    "on_idle": (1_000_000, 300_000, 1),
    "on_mss": (500,),
    "use_hystart": (True,),
}


class Fixed(CongestionControl):
    """Goes its own way."""

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:
        self.cwnd += acked // 10


def raising(event: str) -> type[CongestionControl]:
    def fail(self: CongestionControl, *values: object) -> None:
        self.cwnd = 77 * MSS
        raise ZeroDivisionError(event)

    return type("Broken", (CongestionControl,), {event: fail})


def guarded(algorithm: type[CongestionControl]) -> tuple[Guard, list[Exception]]:
    errors: list[Exception] = []
    return Guard(algorithm, "mine", lambda _, error: errors.append(error), MSS, 10 * MSS), errors


def test_the_guard_hands_on_every_event_there_is() -> None:
    """A new event in the base class must be added to the guard, and here."""
    events = {name for name, _ in inspect.getmembers(CongestionControl, inspect.isfunction) if name.startswith(("on_", "use_"))}
    assert events == EVENTS.keys()
    for event in events:
        assert event in Guard.__dict__, event
        heard: list[object] = []
        algorithm = type("Listening", (CongestionControl,), {event: lambda self, *values, heard=heard: heard.extend(values)})
        control, errors = guarded(algorithm)
        getattr(control, event)(*EVENTS[event])
        assert (heard, errors) == ([*EVENTS[event]], [])


def test_what_it_decides_holds_and_what_the_engine_sets_it_sees() -> None:
    control, errors = guarded(Fixed)
    control.on_ack(MSS, MSS, 0, 0, True)
    assert control.cwnd == 10_100
    control.cwnd, control.ssthresh = 5000, 7000
    control.on_ack(MSS, MSS, 0, 0, True)
    assert (control.cwnd, control.inner.ssthresh, control.name, errors) == (5100, 7000, "mine", [])


@pytest.mark.parametrize("event", [event for event in EVENTS if event != "on_rate"])
def test_an_exception_has_reno_go_on_from_the_windows_before_it(event: str) -> None:
    """M-38: and Reno hears of the event too, for a loss is a loss."""
    control, errors = guarded(raising(event))
    reno = Reno(MSS, 10 * MSS)
    for each in (control, reno):
        each.ssthresh = 8 * MSS
        getattr(each, event)(*EVENTS[event])
    assert isinstance(control.inner, Reno) and control.name == "reno"
    assert (control.cwnd, control.ssthresh, control.mss) == (reno.cwnd, reno.ssthresh, reno.mss)
    assert [str(error) for error in errors] == [event]
    control.on_congestion(0, 0)
    assert len(errors) == 1


def test_an_algorithm_that_cannot_be_made_is_replaced_too() -> None:
    class Unmade(CongestionControl):
        def __init__(self, mss: int, cwnd: int) -> None:
            raise RuntimeError("no")

    class Forgetful(CongestionControl):
        def __init__(self, mss: int, cwnd: int) -> None:
            self.mine = 1  # super().__init__() is missing

    for algorithm in (Unmade, Forgetful):
        control, errors = guarded(algorithm)
        assert (control.name, control.cwnd, len(errors)) == ("reno", 10 * MSS, 1)


def test_a_rate_based_algorithm_that_raises_becomes_reno_in_all() -> None:
    class Rate(CongestionControl):
        rate_based = True
        fast_recovery = False

        def on_rate(self, sample: RateSample) -> None:
            self.pacing_rate = 1 // 0

    control, errors = guarded(Rate)
    assert control.rate_based and not control.fast_recovery
    control.pacing_rate = 5
    control.on_rate(RateSample())
    assert (control.rate_based, control.fast_recovery, control.pacing_rate, len(errors)) == (False, True, 0, 1)


@pytest.mark.parametrize(
    ("left", "cwnd", "ssthresh"),
    [
        ({"cwnd": 0}, MSS, 8 * MSS),
        ({"cwnd": -5}, MSS, 8 * MSS),
        ({"cwnd": 12345.9}, 12345, 8 * MSS),
        ({"cwnd": float("inf")}, INFINITE, 8 * MSS),
        ({"cwnd": 1 << 80, "ssthresh": 1 << 80}, INFINITE, INFINITE),
        ({"ssthresh": float("inf")}, 10 * MSS, INFINITE),
        ({"ssthresh": -1}, 10 * MSS, 2 * MSS),
    ],
)
def test_nonsense_is_brought_within_bounds(left: dict[str, float], cwnd: int, ssthresh: int) -> None:
    """M-38."""
    control, errors = guarded(leaving(left))
    control.ssthresh = 8 * MSS
    control.on_ack(MSS, MSS, 0, 0, True)
    assert (control.cwnd, control.ssthresh, errors) == (cwnd, ssthresh, [])
    assert type(control.cwnd) is type(control.ssthresh) is int


@pytest.mark.parametrize("left", [{"cwnd": None}, {"cwnd": "10"}, {"cwnd": float("nan")}, {"pacing_rate": None}, {"ssthresh": [1]}])
def test_what_is_no_number_is_a_mistake_as_an_exception_is(left: dict[str, object]) -> None:
    control, errors = guarded(leaving(left))
    control.on_ack(MSS, MSS, 0, 0, True)
    assert (control.name, control.cwnd, len(errors)) == ("reno", 11 * MSS, 1)


def leaving(values: dict[str, object] | dict[str, float]) -> type[CongestionControl]:
    def on_ack(self: CongestionControl, *_: object) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    return type("Nonsense", (CongestionControl,), {"on_ack": on_ack})


def test_two_stacks_do_not_share_what_was_added() -> None:
    """M-38: nothing is global."""
    one, other = Algorithms(), Algorithms()
    assert one.add(Fixed) == "fixed"
    assert "fixed" in one and "fixed" not in other
    assert {"cubic", "reno", "tahoe"} <= set(other)
    assert list(one) == sorted(one)
    control = one["fixed"](MSS, 10 * MSS)
    assert (control.name, control.cwnd) == ("fixed", 10 * MSS)


def test_its_name_is_its_attribute_or_that_of_the_class() -> None:
    class Mine(Cubic):
        name = "my-own"

    class Other(Mine):
        pass

    algorithms = Algorithms()
    assert (algorithms.add(Mine), algorithms.add(Other)) == ("my-own", "other")


def named(name: object) -> type[CongestionControl]:
    return type("Some", (CongestionControl,), {"name": name})


@pytest.mark.parametrize(
    ("algorithm", "error", "text"),
    [
        (lambda: int, TypeError, "'int' is not a subclass of CongestionControl"),
        (lambda: 7, TypeError, "7 is not"),
        (lambda: named("reno"), ValueError, "'reno' exists already"),
        (lambda: named("Has Space"), ValueError, "'Has Space' is no name"),
        (lambda: named("longer-than-fifteen"), ValueError, "is no name"),
        (lambda: named(7), ValueError, "7 is no name"),
    ],
)
def test_what_cannot_be_added_says_why(algorithm: Callable[[], type[CongestionControl]], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Algorithms().add(algorithm())


def test_what_raises_when_it_is_made_is_not_added() -> None:
    class Unmade(CongestionControl):
        def __init__(self, mss: int, cwnd: int) -> None:
            raise RuntimeError("no")

    algorithms = Algorithms()
    with pytest.raises(RuntimeError, match="no"):
        algorithms.add(Unmade)
    assert "unmade" not in algorithms
