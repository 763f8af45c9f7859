"""How a link is written: every item, either direction, and one clear line for what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunstack.device.impairment import GilbertElliott, Impairment
from tunstack.device.link import Direction
from tunstack.device.linkspec import LinkSpec, parse


def test_every_item_is_taken() -> None:
    spec = parse(
        "delay=20ms,jitter=5ms,loss=1%,gemodel=1%/25%/90%/0.1%,dup=0.1%,corrupt=0.05%,reorder=1%/4,rate=50mbit,queue=100,ecn=20,seed=7"
    )
    assert spec.up == spec.down
    assert spec.up == Impairment(
        delay=20_000,
        jitter=5_000,
        loss=0.01,
        gemodel=GilbertElliott(0.01, 0.25, 0.9, 0.001),
        duplicate=0.001,
        corrupt=0.0005,
        reorder=0.01,
        reorder_depth=4,
        rate=50_000_000,
        queue=100,
        ecn=20,
    )
    assert spec.seed == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Impairment()),
        (" delay = 1ms , loss = 2% ", Impairment(delay=1000, loss=0.02)),
        ("delay=250us", Impairment(delay=250)),
        ("delay=1.5s", Impairment(delay=1_500_000)),
        ("delay=0", Impairment()),
        ("delay=0.0004ms", Impairment()),
        ("delay=2.5US", Impairment(delay=3)),
        ("loss=0", Impairment()),
        ("ce=2%", Impairment(ce=0.02)),
        ("loss=100%", Impairment(loss=1.0)),
        ("rate=9600bit", Impairment(rate=9600)),
        ("rate=1.5gbit", Impairment(rate=1_500_000_000)),
        ("rate=800Kbit", Impairment(rate=800_000)),
        ("reorder=2%", Impairment(reorder=0.02, reorder_depth=3)),
        ("mtu=1280", Impairment(mtu=1280)),
        ("mtu=1280/silent", Impairment(mtu=1280, mtu_silent=True)),
        ("gemodel=1%/10%", Impairment(gemodel=GilbertElliott(0.01, 0.1, 1.0, 0.0))),
        ("gemodel=1%/10%/50%", Impairment(gemodel=GilbertElliott(0.01, 0.1, 0.5, 0.0))),
    ],
)
def test_units_and_short_forms(text: str, expected: Impairment) -> None:
    spec = parse(text)
    assert (spec.up, spec.down, spec.seed) == (expected, expected, None)
    assert str(spec) == text


def test_none_is_a_link_without_impairment() -> None:
    for text in ("none", " none ", ""):
        assert parse(text) == LinkSpec("", Impairment(), Impairment())


def test_a_direction_by_itself_goes_before_what_is_common() -> None:
    spec = parse("delay=20ms,seed=3; down: rate=50mbit, queue=10; up:delay=1ms,loss=1%")
    assert spec.up == Impairment(delay=1000, loss=0.01)
    assert spec.down == Impairment(delay=20_000, rate=50_000_000, queue=10)
    assert spec.seed == 3
    alone = parse("up:loss=5%")
    assert (alone.up, alone.down) == (Impairment(loss=0.05), Impairment())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dely=1ms", "'dely' is nothing that a link does (did you mean delay?)"),
        (
            "xyz=1",
            "'xyz' is nothing that a link does"
            " (known: delay, jitter, loss, gemodel, dup, corrupt, ce, reorder, rate, queue, mtu, ecn, seed)",
        ),
        ("delay", "delay has no value: delay=20ms"),
        ("delay=", "delay=: not a time with a unit (us, ms, s), such as delay=20ms"),
        ("delay=20", "delay=20: not a time with a unit (us, ms, s), such as delay=20ms"),
        ("delay=-1ms", "delay=-1ms: not a time with a unit (us, ms, s), such as delay=20ms"),
        ("delay=20 ms", "delay=20 ms: not a time with a unit (us, ms, s), such as delay=20ms"),
        ("delay=2h", "delay=2h: not a time with a unit (us, ms, s), such as delay=20ms"),
        ("delay=4000s", "delay=4000s: longer than an hour, such as delay=20ms"),
        ("loss=1", "loss=1: not a percentage from 0% to 100%, such as loss=1%"),
        ("loss=101%", "loss=101%: not a percentage from 0% to 100%, such as loss=1%"),
        ("rate=50", "rate=50: not a rate with a unit (bit, kbit, mbit, gbit), such as rate=50mbit"),
        ("rate=50mbps", "rate=50mbps: not a rate with a unit (bit, kbit, mbit, gbit), such as rate=50mbit"),
        ("queue=0", "queue=0: not a whole number from 1 on, such as queue=100"),
        ("reorder=1%/x", "reorder=1%/x: not a whole number from 1 on, such as reorder=1%/3"),
        ("gemodel=1%", "gemodel=1%: not two to four percentages, such as gemodel=1%/25%"),
        ("gemodel=1%/2/3%", "gemodel=1%/2/3%: not a percentage from 0% to 100%, such as gemodel=1%/25%"),
        ("seed=x", "seed=x: not a whole number, such as seed=7"),
        ("delay=1ms,delay=2ms", "delay is given twice"),
        ("up:loss=1%;up:loss=2%", "loss is given twice"),
        ("out:loss=1%", "'out' is no direction: up or down"),
        ("up:seed=1", "seed is for the whole link: give it before up: and down:"),
        ("jitter=5ms", "jitter of 5000 us is larger than the delay of 0 us: frames would arrive before they were sent"),
        (
            "delay=5ms;down:jitter=6ms",
            "down: jitter of 6000 us is larger than the delay of 5000 us: frames would arrive before they were sent",
        ),
        ("mtu=60", "an MTU is 68 to 65535 octets: 60"),
        ("mtu=1280/loud", "mtu=1280/loud: behind the slash stands nothing but silent, such as mtu=1280"),
        ("ecn=5", "ecn marks frames that queue for the rate: give a rate too"),
        ("rate=1mbit,queue=5,ecn=6", "ecn of 6 frames is never reached: the queue holds 5"),
    ],
)
def test_a_mistake_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == message


@settings(derandomize=True, max_examples=500)
@given(st.text(alphabet="delayjitrosqucng=,;:/%.0123456789mskbup \t", max_size=60))
def test_any_text_is_taken_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


def arrivals(direction: Direction) -> list[int]:
    return [i for i in range(2000) if direction.offer(bytes(40), i)]


def test_the_seed_makes_two_directions_that_repeat_and_differ() -> None:
    spec = parse("loss=30%,seed=7")
    first = [arrivals(direction) for direction in spec.directions(1)]
    assert [arrivals(direction) for direction in spec.directions(2)] == first
    assert first[0] != first[1]
    drawn = parse("loss=30%")
    assert arrivals(drawn.directions(7)[0]) == first[0]
    assert arrivals(drawn.directions(8)[0]) != first[0]


def test_a_change_keeps_the_draw_unless_it_names_a_seed() -> None:
    spec = parse("loss=30%,seed=7")
    up, down = spec.directions(0)
    rng = up.rng
    parse("loss=50%").apply(up, down)
    assert (up.impairment.loss, down.impairment.loss) == (0.5, 0.5)
    assert up.rng is rng
    spec.apply(up, down)
    assert [arrivals(up), arrivals(down)] == [arrivals(direction) for direction in spec.directions(0)]


def test_a_link_of_a_delay_at_most_takes_frames_of_any_size() -> None:
    assert parse("").up.takes_any_size
    assert parse("delay=20ms,seed=4").up.takes_any_size
    for text in ("delay=1ms,jitter=1ms", "loss=1%", "gemodel=1%/1%", "dup=1%", "corrupt=1%", "reorder=1%", "rate=1gbit", "mtu=1280"):
        assert not parse(text).up.takes_any_size
