"""`tunstack link`: two network namespaces on a link that misbehaves on command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunstack.cli.parser import Parser
from tunstack.cli.settingflags import add_settings, overrides
from tunstack.daemon import settings
from tunstack.daemon.config import Values
from tunstack.daemon.kinds import InterfaceName, NetworkAddress, Switch, check_host
from tunstack.daemon.settings import Setting

if TYPE_CHECKING:
    from tunstack.daemon.link import LinkConfig

DESCRIPTION = """\
Join two network namespaces by a link: a TUN interface in each, and between them the delay, loss, rate and so on of
--link. So two Linux kernels meet on the very link that `tunstack serve --link` puts before tunstack. Needs root, and
gives it up once the interfaces are open; they go when it ends. SIGTERM or SIGINT ends it, with the counts of what
happened to the frames."""

EPILOG = """\
SPEC is a list of items, joined by commas, for both directions; after a semicolon, up: or down: begins items for one
direction alone, which go before the common ones. Up is from A to B (of `tunstack serve`: from tunstack to the network).
  delay=TIME             one way: 250us, 20ms, 1.5s
  jitter=TIME            the delay varies evenly by so much up and down; order is kept
  loss=P                 each frame by itself: 1%, 0.05%
  gemodel=P/R[/B[/G]]    loss in bursts (Gilbert-Elliott): from the good state to the bad P, from bad to good R,
                         lost in the bad state B (100%), in the good one G (0%)
  dup=P                  sent twice
  corrupt=P              one bit flipped, anywhere in the packet
  ce=P                   marked CE, where its sender can take it (ECT), each frame by itself
  reorder=P[/DEPTH]      held back until DEPTH (3) later frames have overtaken it, or 20 ms passed
  rate=RATE              of IP octets: 800kbit, 50mbit, 1.5gbit
  queue=FRAMES           that wait for the rate at most (1000); what comes beyond is dropped
  ecn=FRAMES             length of the queue from which on frames whose sender can take it (ECT) are marked CE
  seed=N                 the same choices again; without it a seed is drawn, and told
A frame meets loss, corruption, a mark, duplication, queue and rate, then delay, jitter and reordering.

While it runs, a line on standard input is a new SPEC (`none` for no impairment); an empty line shows the counts.
With a delay at most, segments of up to 64 KB pass whole; otherwise packets of wire size, as the kernels cut them.

examples:
  sudo ip netns add a; sudo ip netns add b
  sudo tunstack link --a a --b b --link 'delay=10ms,loss=1%,rate=100mbit'
  sudo tunstack link --a a:tun7 --b b:tun8 --a-address 10.1.0.1/24 --b-address 10.1.0.2/24 \\
       --link 'delay=5ms;down:rate=2mbit,queue=50'
  then: sudo ip netns exec a ping 10.79.0.2"""

IFACE = "link0"
A_ADDRESS = Setting(("a-address",), NetworkAddress(), NetworkAddress().from_text("10.79.0.1/24"), "A's address, with its network")
B_ADDRESS = Setting(("b-address",), NetworkAddress(), NetworkAddress().from_text("10.79.0.2/24"), "B's address, in the same network")
LINK = Setting(settings.LINK.key, settings.LINK.kind, None, "what the link does, such as delay=20ms,loss=1%")
INTERFACE_SETTINGS = (A_ADDRESS, B_ADDRESS, settings.MTU, settings.OFFLOAD, LINK)
REALTIME = Setting(("realtime",), Switch(), True, "run before ordinary processes (SCHED_RR), which exact delays on a busy machine take")
PROCESS_SETTINGS = (REALTIME, settings.USER, settings.LOOP)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    config = parse(arguments)
    from tunstack.daemon.link import run  # the codec, asyncio: not needed for help or a mistake

    run(config)
    return 0


def parse(arguments: Sequence[str]) -> LinkConfig:
    """Return what the command line says; UserError if it is wrong."""
    parser = Parser("link", "--a NETNS[:IFACE] --b NETNS[:IFACE] [OPTION]...", DESCRIPTION, EPILOG)
    ends = parser.add_argument_group("interfaces and link")
    for name in ("a", "b"):
        text = f"namespace (a name of `ip netns`, a path, or nothing for this one) and interface of {name.upper()} (default {IFACE})"
        ends.add_argument(f"--{name}", metavar="NETNS[:IFACE]", help=text)
    add_settings(ends, INTERFACE_SETTINGS)
    add_settings(parser.add_argument_group("process"), PROCESS_SETTINGS)
    given = parser.parse_args(arguments)
    if given.a is None or given.b is None:
        parser.error("give both ends: --a NETNS --b NETNS")
    values = Values(overrides(given, (*INTERFACE_SETTINGS, *PROCESS_SETTINGS)))
    a, b = values.get(A_ADDRESS), values.get(B_ADDRESS)
    if a.network != b.network:
        parser.error(f"--b-address: {b} is not in A's network {a.network} (--a-address {a})")
    if a.ip == b.ip:
        parser.error(f"--b-address: {b.ip} is A's address already")
    for setting, address in ((A_ADDRESS, a), (B_ADDRESS, b)):
        try:
            check_host(address.ip, address)
        except ValueError as error:
            parser.error(f"{setting.flag}: {error}")
    names = []
    for flag in ("a", "b"):
        namespace, colon, name = getattr(given, flag).rpartition(":")
        if not colon:
            namespace, name = name, IFACE
        try:
            names.append((namespace, InterfaceName().from_text(name)))
        except ValueError as error:
            parser.error(f"--{flag}: {error}")
    from tunstack.daemon.link import End, LinkConfig

    return LinkConfig(
        a=End(*names[0], a),
        b=End(*names[1], b),
        mtu=values.get(settings.MTU),
        offload=values.get(settings.OFFLOAD),
        spec=values.find(LINK) or LINK.kind.from_text(""),
        realtime=values.get(REALTIME),
        user=values.get(settings.USER),
        loop=values.get(settings.LOOP),
    )
