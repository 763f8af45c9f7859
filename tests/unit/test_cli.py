"""The command line: help, mistakes, what the flags mean. Nothing here opens an interface."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from tunstack.cli import COMMANDS, main
from tunstack.cli.nc import NetcatConfig, parse
from tunstack.daemon.errors import UserError

SAME_NAMESPACE = "both ends are in one network namespace, where its kernel talks to itself without any interface: give two"


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a wrong call gets."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("tunstack: ")
    return err.removeprefix("tunstack: ").rstrip("\n")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: tunstack COMMAND")
        assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits(capsys: pytest.CaptureFixture[str], command: str) -> None:
    for arguments in ([command, "--help"], ["help", command]):
        try:
            assert main(arguments) == 0
        except SystemExit as end:  # argparse ends after its help
            assert end.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: tunstack {command} ")
        assert "examples:" in out and max(map(len, out.splitlines())) <= 126


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "tunstack"


def test_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "tunstack", "srve"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "tunstack: there is no command 'srve': see tunstack --help\n")


def test_lack_of_the_extension_is_told_in_one_line() -> None:
    code = (
        "import sys, tunstack.cli\nsys.modules['tunstack.wire._native'] = None\n"  # what an import of it finds where it was not built
        "sys.exit(tunstack.cli.main(['link', '--a', '', '--b', '']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    warning, mistake = done.stderr.splitlines()
    assert warning.startswith("tunstack: warning: tunstack runs without its C extension"), warning
    assert mistake == f"tunstack: {SAME_NAMESPACE}"


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    """Neither the engine nor the libraries are imported."""
    code = "import sys, tunstack.cli\ntry: tunstack.cli.main(['serve', '--help'])\nfinally: print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    for name in ("asyncio", "aiohttp", "pyroute2", "uvloop", "tunstack.engine.stack"):
        assert f"'{name}'" not in done.stderr


def test_reader_of_help_who_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m tunstack serve --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1) and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frobnicate"], "there is no option '--frobnicate': see tunstack --help"),
        (["help", "srve"], "there is no command 'srve': see tunstack --help"),
        (["serve", "--mtu", "7"], "serve: argument --mtu: 7 is not between 88 and 65535 (see tunstack serve --help)"),
        (["serve", "--mt", "1500"], "serve: unrecognized arguments: --mt 1500 (see tunstack serve --help)"),
        (["serve", "--address"], "serve: argument --address: expected one argument (see tunstack serve --help)"),
        (["serve", "--loop", "trio"], "serve: argument --loop: 'trio' is none of uvloop, asyncio (see tunstack serve --help)"),
        (["serve", "--http-upload"], "--http-upload: there is no directory to write to; give one with --http-root"),
        (["serve", "--echo-port", "80"], "--echo-port: 80 is the port of http already"),
        (["serve", "--address", "10.77.0.1"], "--address: 10.77.0.1 is the kernel's own end (--host-address 10.77.0.1/24)"),
        (
            ["serve", "--sysctl", "tcp_sack"],
            "serve: argument --sysctl: 'tcp_sack' is not of the form NAME=VALUE (see tunstack serve --help)",
        ),
        (
            ["serve", "--sysctl", "net.ipv4.tcp_sac=1"],
            "serve: argument --sysctl: net.ipv4.tcp_sac: there is no such knob (did you mean tcp_sack?) (see tunstack serve --help)",
        ),
        (["serve", "--config", "/nowhere.toml"], "cannot read the configuration /nowhere.toml: No such file or directory"),
        (
            ["serve", "--link", "delay=20"],
            "serve: argument --link: delay=20: not a time with a unit (us, ms, s), such as delay=20ms (see tunstack serve --help)",
        ),
        (["link"], "link: give both ends: --a NETNS --b NETNS (see tunstack link --help)"),
        (["link", "--a", "x"], "link: give both ends: --a NETNS --b NETNS (see tunstack link --help)"),
        (
            ["link", "--a", "x", "--b", "y", "--link", "los=1%"],
            "link: argument --link: 'los' is nothing that a link does (did you mean loss?) (see tunstack link --help)",
        ),
        (
            ["link", "--a", "x", "--b", "y:"],
            "link: --b: '' is not an interface name: it must have 1 to 15 octets (see tunstack link --help)",
        ),
        (
            ["link", "--a", "x", "--b", "y", "--b-address", "10.80.0.2/24"],
            "link: --b-address: 10.80.0.2/24 is not in A's network 10.79.0.0/24 (--a-address 10.79.0.1/24) (see tunstack link --help)",
        ),
        (
            ["link", "--a", "x", "--b", "y", "--b-address", "10.79.0.1/24"],
            "link: --b-address: 10.79.0.1 is A's address already (see tunstack link --help)",
        ),
        (["link", "--a", ":a", "--b", ":b"], SAME_NAMESPACE),
        (["link", "--a", "no-such-ns", "--b", ":b"], "there is no network namespace 'no-such-ns': make it with `ip netns add no-such-ns`"),
        (["link", "--a", "/no/ns", "--b", ":b"], "network namespace '/no/ns' cannot be opened: No such file or directory"),
        (["nc", "10.78.0.1"], "nc: give a host and a port: tunstack nc HOST PORT (see tunstack nc --help)"),
        (["nc", "-l"], "nc: give the port to listen on: tunstack nc -l PORT (see tunstack nc --help)"),
        (["nc", "-l", "1", "2"], "nc: give the port to listen on: tunstack nc -l PORT (see tunstack nc --help)"),
        (["nc", "10.78.0.1", "http"], "nc: port: 'http' is not a whole number (see tunstack nc --help)"),
        (["nc", "10.78.0.1", "70000"], "nc: port: 70000 is not between 0 and 65535 (see tunstack nc --help)"),
        (["nc", "10.78.0.1", "0"], "nc: port: 0 is not a port to connect to (see tunstack nc --help)"),
        (["nc", "-k", "10.78.0.1", "7"], "nc: -k does not go without -l (see tunstack nc --help)"),
        (["nc", "-l", "-z", "7"], "nc: -z does not go with -l (see tunstack nc --help)"),
        (["nc", "-w", "soon", "10.78.0.1", "7"], "nc: -w: 'soon' is not a number of seconds (see tunstack nc --help)"),
        (["nc", "-s", "10.78.0.9", "10.78.0.1", "7"], "nc: -s: 10.78.0.9 is none of --address 10.78.0.2 (see tunstack nc --help)"),
        (
            ["nc", "localhost", "22"],
            "nc: 'localhost' is this machine's own loopback, which no other host can reach:"
            " use its address on the interface, --host-address (see tunstack nc --help)",
        ),
    ],
)
def test_mistake_gets_one_line_and_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert mistake(capsys, *arguments) == message


def test_mistake_in_the_file_is_told_with_file_and_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text("mtu = 1500\nmtv = 1\n")
    assert mistake(capsys, "serve", "--config", str(path)) == f"{path}:2: mtv: unknown key (did you mean mtu?)"


def test_check_config_prints_what_would_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text("mtu = 9000\noffload = false\n[services.echo]\nport = 7007\n")
    arguments = ["serve", "--config", str(path), "--check-config", "--mtu", "1400", "--offload", "--no-daytime"]
    assert main([*arguments, "--address", "10.77.0.3", "--address", "10.77.0.4", "--sysctl", "net.ipv4.tcp_sack=0"]) == 0
    out = capsys.readouterr().out
    for line in ("mtu = 1400 ", "offload = true ", 'address = ["10.77.0.3", "10.77.0.4"] ', "port = 7007 ", "net.ipv4.tcp_sack = false\n"):
        assert f"\n{line}" in out
    assert "[services.daytime]\nenabled = false" in out and "[services.echo]\nenabled = true" in out


def test_nc_tries_interfaces_until_one_is_free() -> None:
    config = parse(["10.78.0.1", "7"])
    assert (config.interfaces[0].tun, str(config.interfaces[0].host_address)) == ("tunstack-nc0", "10.78.0.1/24")
    assert config.interfaces[3].tun == "tunstack-nc3"
    assert config.interfaces[3].host_address == IPv4Interface("10.78.3.1/24")
    assert config.interfaces[3].addresses == (IPv4Address("10.78.3.2"),)


def test_nc_takes_the_interface_that_is_named() -> None:
    config = parse(["--tun", "x", "--mtu", "576", "--no-offload", "-l", "0"])
    (interface,) = config.interfaces
    assert (interface.tun, interface.mtu, interface.offload, config.host, config.port) == ("x", 576, False, None, 0)


def test_nc_flags() -> None:
    def flags(*arguments: str) -> NetcatConfig:
        return parse([*arguments, "10.78.0.1", "7"])

    assert flags("-N").shutdown_at_eof and not flags().shutdown_at_eof
    assert flags("-q", "1.5").quit_after == 1.5 and flags("-q", "0").quit_after == 0 and flags("-q", "0").shutdown_at_eof
    assert flags("-w", "2").timeout == 2 and flags().timeout is None
    assert flags("-p", "4000").source_port == 4000 and flags().source_port == 0
    assert flags("-s", "10.78.0.2").source == IPv4Address("10.78.0.2")
    assert not flags("-d").read_input and flags("-z").only_connect and flags("-v").verbose
    assert flags("-vN").verbose and flags("-vN").shutdown_at_eof
    assert parse(["-lk", "7"]).keep_listening


def test_setting_of_nc_that_is_wrong_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"--address: 10\.0\.0\.9 is not in the interface's network"):
        parse(["--host-address", "10.9.9.1/24", "--address", "10.0.0.9", "10.9.9.1", "7"])


def test_lack_of_rights_is_told_in_one_line() -> None:
    """As nobody, who may not make an interface. The imports come first, for Python may be where only root can read it."""
    code = (
        "import os, sys, tunstack.daemon.serve, tunstack.cli.serve\nfrom tunstack.cli import main\n"
        "if os.getuid() == 0: os.setuid(65534)\nsys.exit(main(['serve', '--tun', 'tunstack-test']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tunstack: ") and done.stderr.count("\n") == 1
    assert "CAP_NET_ADMIN" in done.stderr or "/dev/net/tun" in done.stderr
