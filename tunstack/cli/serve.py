"""`tunstack serve`: the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunstack.cli.parser import Parser
from tunstack.cli.settingflags import add_settings, add_sysctl, overrides
from tunstack.daemon import algorithm, config, settings

DESCRIPTION = """\
Open a TUN interface and serve on it: HTTP, echo, discard, daytime and chargen, with a TCP of our own.
The kernel has --host-address on the interface, tunstack answers to --address. Needs root (CAP_NET_ADMIN)
to make the interface, and gives it up then; a persistent interface of the user's own needs none.
SIGTERM or SIGINT ends it: connections are given --drain-timeout to finish; a second signal ends it at once."""

EPILOG = """\
Every setting can stand in the --config file too, under its flag's name: mtu = 1500, address = ["10.77.0.2"],
offload = false; a service's in its table, [services.http] port = 8080; knobs in [sysctl]. The command line goes
before the file. --check-config prints all settings in that form.
--link puts a network that misbehaves between tunstack and the interface; `tunstack help link` has its items. Up is
from tunstack to the network. It can be changed in the file while tunstack runs: SIGHUP reads `link` and the keys again.

examples:
  sudo tunstack serve --http-root /srv/files     then: curl http://10.77.0.2/
  sudo tunstack serve --no-http --echo-port 7007 --address 10.77.0.2 --address 10.77.0.3
  sudo tunstack serve --link 'delay=20ms,jitter=5ms,loss=1%,seed=7;down:rate=50mbit,queue=100'
  tunstack serve --config tunstack.toml --check-config"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Parser("serve", "[OPTION]...", DESCRIPTION, EPILOG)
    general = parser.add_argument_group("configuration")
    general.add_argument("--config", type=Path, metavar="FILE.toml", help="read settings from a file")
    general.add_argument("--check-config", action="store_true", help="check all settings, print them and exit")
    add_settings(parser.add_argument_group("interface"), settings.INTERFACE_SETTINGS)
    add_settings(parser.add_argument_group("services"), settings.SERVICE_SETTINGS)
    process = parser.add_argument_group("process and protocol")
    add_settings(process, settings.PROCESS_SETTINGS)
    add_sysctl(process)
    given = parser.parse_args(arguments)

    def load() -> config.ServeConfig:
        return config.load(given.config, overrides(given, settings.SERVE_SETTINGS), dict(given.sysctl))

    configuration = load()
    if given.check_config:
        algorithm.prepare(configuration.congestion)
        print(config.to_toml(configuration), end="", flush=True)
        return 0
    if configuration.workers > 1:  # the engine, aiohttp: not needed for help or a mistake
        from tunstack.daemon.supervisor import supervise as serve
    else:
        from tunstack.daemon.serve import serve
    serve(configuration, load if given.config else None)
    return 0
