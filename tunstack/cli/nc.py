"""`tunstack nc`: netcat over a stack of our own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from tunstack.cli.parser import Parser
from tunstack.cli.settingflags import add_settings, add_sysctl, overrides
from tunstack.daemon import settings, sysctls
from tunstack.daemon.algorithm import Choice
from tunstack.daemon.config import InterfaceConfig, Values, interface_config
from tunstack.daemon.kinds import Address, Integer, Seconds

DESCRIPTION = """\
Connect to HOST PORT, or with -l listen on PORT, and relay standard input and output, through a TUN interface
and a TCP of our own. Meant to be used like OpenBSD's nc, also as ssh's ProxyCommand. The interface goes when nc ends."""

EPILOG = """\
Without -N or -q the connection stays open after the end of standard input, until the peer closes it.
If none of --tun, --host-address and --address is given, the first free one of tunstack-nc0 (10.78.0.1/24, 10.78.0.2),
tunstack-nc1 (10.78.1.1/24, 10.78.1.2), ... is taken, so that several can run at once, beside `tunstack serve`.
HOST must be reachable from --address through this machine's kernel: its own addresses are (not 127.0.0.1, which every host
keeps to itself), others where it forwards packets and they know the way back.
Exit status: 0 when the conversation is over, 1 if it failed, 2 if it was called wrongly.

examples:
  echo hello | sudo tunstack nc -N 10.78.0.1 7
  sudo tunstack nc -l 5000 > file                then: nc -N 10.78.0.2 5000 < file
  ssh -o ProxyCommand='sudo tunstack nc %h %p' user@10.78.0.1"""

TUN = settings.tun("tunstack-nc0")
HOST_ADDRESS = settings.host_address("10.78.0.1/24")
ADDRESS = settings.address("10.78.0.2")
SETTINGS = (TUN, HOST_ADDRESS, ADDRESS, settings.MTU, settings.OFFLOAD, settings.USER, settings.CONGESTION)
SPARE = 64  # interfaces that are tried where none is named

PORT = Integer(0, 65535, "PORT")


@dataclass(frozen=True, slots=True)
class NetcatConfig:
    """What `tunstack nc` runs with. `host` is None for a listener. Times are seconds."""

    interfaces: tuple[InterfaceConfig, ...]  # the first that is free
    user: str
    sysctl: dict[str, sysctls.Value]
    congestion: Choice | None
    host: str | None
    port: int
    source: IPv4Address | None
    source_port: int
    keep_listening: bool
    read_input: bool
    only_connect: bool
    shutdown_at_eof: bool
    quit_after: float | None
    timeout: float | None
    verbose: bool
    fastopen: bool


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    config = parse(arguments)
    from tunstack.cli.netcat import run  # the engine: not needed for help or a mistake

    return run(config)


def parse(arguments: Sequence[str]) -> NetcatConfig:
    """Return what the command line says; UserError if it is wrong."""
    parser = Parser("nc", "[OPTION]... HOST PORT\n       tunstack nc -l [OPTION]... PORT", DESCRIPTION, EPILOG)
    parser.add_argument("where", nargs="*", metavar="HOST PORT", help="where to connect to; with -l the port to listen on, 0 for any")
    group = parser.add_argument_group("conversation")
    group.add_argument("-l", dest="listen", action="store_true", help="listen for a connection")
    group.add_argument("-k", dest="keep", action="store_true", help="with -l: after a connection wait for the next one")
    group.add_argument("-N", dest="shutdown", action="store_true", help="half-close (FIN) after the end of standard input")
    group.add_argument("-q", dest="quit_after", metavar="SECONDS", help="end so long after the end of standard input; implies -N")
    group.add_argument("-w", dest="timeout", metavar="SECONDS", help="give up connecting, or end an idle conversation, after so long")
    group.add_argument("-d", dest="detach", action="store_true", help="do not read standard input")
    group.add_argument("-z", dest="zero", action="store_true", help="only see whether HOST PORT accepts a connection")
    group.add_argument("-s", dest="source", metavar="ADDRESS", help="which one of --address to use")
    group.add_argument("-p", dest="source_port", metavar="PORT", help="local port to connect from")
    group.add_argument("--fastopen", action="store_true", help="TCP Fast Open: send the first input in the SYN, with -l take it from there")
    group.add_argument("-v", dest="verbose", action="store_true", help="say what happens, on standard error")
    interface = parser.add_argument_group("interface")
    add_settings(interface, SETTINGS)
    add_sysctl(interface)
    given = parser.parse_args(arguments)
    host, port = _where(parser, given)

    def take(kind: Address | Integer | Seconds, text: str | None, flag: str) -> object:
        try:
            return None if text is None else kind.from_text(text)
        except ValueError as error:
            parser.error(f"{flag}: {error}")

    values = Values(overrides(given, SETTINGS))
    interfaces = _interfaces(values)
    values.raise_complaints()
    source = take(Address(), given.source, "-s")
    if source is not None and source not in interfaces[0].addresses:
        parser.error(f"-s: {source} is none of --address {' '.join(map(str, interfaces[0].addresses))}")
    quit_after = take(Seconds(86400), given.quit_after, "-q")
    timeout = take(Seconds(86400), given.timeout, "-w")
    return NetcatConfig(
        interfaces=interfaces,
        user=values.get(settings.USER),
        sysctl=dict(given.sysctl),
        congestion=values.find(settings.CONGESTION),
        host=host,
        port=port,
        source=source if isinstance(source, IPv4Address) else None,
        source_port=int(str(take(Integer(1, 65535), given.source_port, "-p") or 0)),
        keep_listening=given.keep,
        read_input=not given.detach,
        only_connect=given.zero,
        shutdown_at_eof=given.shutdown or quit_after is not None,
        quit_after=quit_after if isinstance(quit_after, float) else None,
        timeout=timeout if isinstance(timeout, float) and timeout > 0 else None,
        verbose=given.verbose,
        fastopen=given.fastopen,
    )


def _where(parser: Parser, given: Namespace) -> tuple[str | None, int]:
    """Return host and port; no host for a listener."""
    if len(given.where) != (1 if given.listen else 2):
        parser.error("give the port to listen on: tunstack nc -l PORT" if given.listen else "give a host and a port: tunstack nc HOST PORT")
    for flag, is_given, is_right in (
        ("-k", given.keep, given.listen),
        ("-z", given.zero, not given.listen),
        ("-p", given.source_port is not None, not given.listen),
    ):
        if is_given and not is_right:
            parser.error(f"{flag} does not go {'with' if given.listen else 'without'} -l")
    *host, port_text = given.where
    try:
        port = PORT.from_text(port_text)
    except ValueError as error:
        parser.error(f"port: {error}")
    if not port and host:
        parser.error("port: 0 is not a port to connect to")
    if host and (not host[0] or host[0].startswith("127.") or host[0] == "localhost"):
        parser.error(
            f"{host[0]!r} is this machine's own loopback, which no other host can reach: use its address on the interface, --host-address"
        )
    return host[0] if host else None, port


def _interfaces(values: Values) -> tuple[InterfaceConfig, ...]:
    """Return the interface that was described, or where none was, those that may be free."""
    first = interface_config(values, TUN, HOST_ADDRESS, ADDRESS)
    if values.is_set(TUN) or values.is_set(HOST_ADDRESS) or values.is_set(ADDRESS):
        return (first,)
    return tuple(
        InterfaceConfig(
            tun=f"tunstack-nc{number}",
            host_address=IPv4Interface(f"10.78.{number}.1/24"),
            addresses=(IPv4Address(f"10.78.{number}.2"),),
            mtu=first.mtu,
            offload=first.offload,
        )
        for number in range(SPARE)
    )
