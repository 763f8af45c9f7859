"""The daemon's configuration: defaults, file, command line, and what is said when they are wrong."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from tunstack.daemon import settings, sysctls
from tunstack.daemon.config import ConfigError, load, to_toml
from tunstack.daemon.errors import UserError
from tunstack.device import linkspec
from tunstack.device.impairment import Impairment
from tunstack.engine.sysctl import Sysctl


def write(directory: Path, text: str) -> Path:
    path = directory / "tunstack.toml"
    path.write_text(text)
    return path


def complaints(path: Path) -> list[str]:
    """Return what is said of a file, without the directory that it is in."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [message.replace(f"{path.parent}/", "") for message in caught.value.messages]


def test_defaults_are_those_of_the_issue() -> None:
    config = load()
    assert config.interface.tun == "tunstack0"
    assert config.interface.host_address == IPv4Interface("10.77.0.1/24")
    assert config.interface.addresses == (IPv4Address("10.77.0.2"),)
    assert (config.interface.mtu, config.interface.offload, config.user, config.loop) == (1500, True, "nobody", "uvloop")
    assert config.ports == {"http": 80, "echo": 7, "discard": 9, "daytime": 13, "chargen": 19}
    assert config.http_root is None and config.http_upload is False
    assert config.drain_timeout == 5


def test_every_setting_of_a_file_is_taken(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
tun = "t1"
host-address = "192.0.2.1/28"
address = ["192.0.2.2", "192.0.2.3"]
mtu = 9000
offload = false
user = "www-data"
loop = "asyncio"
link = "delay=20ms;down:loss=1%"
log-level = "debug"
drain-timeout = 0.5
services.daytime = { enabled = false }
[services.http]
port = 8080
root = "files"
upload = true
[services.echo]
port = 7007
[sysctl]
net.ipv4.tcp_sack = false
"net.core.somaxconn" = 5
net.ipv4.tcp_rmem = [1000, 2000, 3000]
""",
    )
    config = load(path)
    assert config.interface.tun == "t1"
    assert config.interface.addresses == (IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3"))
    assert (config.interface.mtu, config.interface.offload) == (9000, False)
    assert (config.user, config.loop, config.log_level, config.drain_timeout) == ("www-data", "asyncio", "debug", 0.5)
    assert config.ports == {"http": 8080, "echo": 7007, "discard": 9, "chargen": 19}
    assert config.http_root == tmp_path / "files" and config.http_upload
    assert config.link is not None and config.link.down == Impairment(delay=20_000, loss=0.01)
    knobs = sysctls.build(config.sysctl)
    assert (knobs.tcp_sack, knobs.somaxconn, knobs.tcp_rmem) == (False, 5, (1000, 2000, 3000))


def test_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "mtu = 9000\noffload = false\n[sysctl]\nnet.ipv4.tcp_sack = false\nnet.ipv4.tcp_retries2 = 4\n")
    config = load(path, {settings.MTU.key: 576, settings.OFFLOAD.key: True}, {"net.ipv4.tcp_sack": True})
    assert (config.interface.mtu, config.interface.offload) == (576, True)
    assert config.sysctl == {"net.ipv4.tcp_sack": True, "net.ipv4.tcp_retries2": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mtu = 1500\nmtv = 3\n", "2: mtv: unknown key (did you mean mtu?)"),
        ("host_address = '10.77.0.1/24'", "1: host_address: unknown key (did you mean host-address?)"),
        ("[services.htttp]\nport = 1\n", "1: services.htttp: unknown key (did you mean http?)"),
        ("[services.echo]\nroot = 'x'\n", "2: services.echo.root: unknown key"),
        ("[services]\n\nhttp = 3\n", "3: services.http: must be a table, not an integer"),
        ("\nmtu = 'big'", "2: mtu: must be an integer, not a string"),
        ("mtu = true", "1: mtu: must be an integer, not true or false"),
        ("mtu = 87", "1: mtu: 87 is not between 88 and 65535"),
        ("offload = 1", "1: offload: must be true or false, not an integer"),
        ("user = 1979-05-27", "1: user: must be a string, not a date or time"),
        ("tun = 'a name that is too long'", "1: tun: 'a name that is too long' is not an interface name: it must have 1 to 15 octets"),
        ("tun = 'a/b'", "1: tun: 'a/b' is not an interface name: it must not have blanks, '/', ':' or '%' in it"),
        ("loop = 'trio'", "1: loop: 'trio' is none of uvloop, asyncio"),
        ("drain-timeout = -1", "1: drain-timeout: -1 is not between 0 and 3600 seconds"),
        ("drain-timeout = nan", "1: drain-timeout: nan is not between 0 and 3600 seconds"),
        ("host-address = '10.77.0.1'", "1: host-address: '10.77.0.1' is not an address with a prefix length, such as 10.77.0.1/24"),
        ("host-address = '10.77.0.0/24'", "1: host-address: 10.77.0.0 is the network address of 10.77.0.0/24"),
        ("host-address = '10.77.0.1/32'", "1: host-address: 10.77.0.1/32: the prefix must leave room for a second address (at most /31)"),
        ("host-address = '10.77.0.1/77'", "1: host-address: '10.77.0.1/77' has a prefix length beyond 32"),
        ("address = []", "1: address: must not be empty"),
        ("address = [\n '10.77.0.2',\n '10.77.0.300',\n]", "3: address: '10.77.0.300' is not an IPv4 address"),
        ("address = [\n '10.77.0.2',\n 3,\n]", "3: address: must be a string, not an integer"),
        ("address = [\n'10.77.0.1']", "2: address: 10.77.0.1 is the kernel's own end (--host-address 10.77.0.1/24)"),
        ("address = ['10.77.0.2',\n\n'10.77.0.2']", "3: address: 10.77.0.2 is there twice"),
        ("host-address = '10.77.0.1/24'\naddress = '10.78.0.2'", "2: address: 10.78.0.2 is not in the interface's network 10.77.0.0/24 (--host-address 10.77.0.1/24)"),  # noqa: E501
        ("address = '10.77.0.255'\nhost-address = '10.77.0.1/24'", "1: address: 10.77.0.255 is the broadcast address of 10.77.0.0/24"),
        ("address = '127.0.0.1'", "1: address: 127.0.0.1 cannot be the address of a host on an interface"),
        ("\nlink = 'dely=1ms'", "2: link: 'dely' is nothing that a link does (did you mean delay?)"),
        ("link = 'down:jitter=1ms'", "1: link: down: jitter of 1000 us is larger than the delay of 0 us: frames would arrive before they were sent"),  # noqa: E501
        ("link = 20", "1: link: must be a string, not an integer"),
        ("[services.http]\nport = 0", "2: services.http.port: 0 is not between 1 and 65535"),
        ("[services.http]\nport = 7", "2: services.http.port: 7 is the port of echo already"),
        ("[services.chargen]\nport = 80", "2: services.chargen.port: 80 is the port of http already"),
        ("[services.http]\nupload = true", "2: services.http.upload: there is no directory to write to; give one with --http-root"),
        ("sysctl = 4", "1: sysctl: must be a table, not an integer"),
        ("[sysctl]\nnet.ipv4.tcp_sacks = 1", "2: sysctl.net.ipv4.tcp_sacks: there is no such knob (did you mean tcp_sack?)"),
        ("[sysctl]\nnet.ipv4.tcp_ecn = 3", "2: sysctl.net.ipv4.tcp_ecn: 3 is not between 0 and 2"),
        ("[sysctl]\ntcp_sack = 1", "2: sysctl.tcp_sack: there is no such knob (did you mean net.ipv4.tcp_sack?)"),
        ("[sysctl.net.ipv4]\n\ntcp_sack = 2", "3: sysctl.net.ipv4.tcp_sack: 2 is neither 0 nor 1"),
        ("[sysctl]\n'net.ipv4.tcp_retries2' = 256", "2: sysctl.net.ipv4.tcp_retries2: 256 is not between 0 and 255"),
        ("sysctl.net.ipv4.tcp_rmem = [3, 2, 1]", "1: sysctl.net.ipv4.tcp_rmem: 3 2 1: the numbers must not fall from one to the next"),
        ("sysctl.net.ipv4.tcp_rmem = [1, 2]", "1: sysctl.net.ipv4.tcp_rmem: must be 3 whole numbers, such as 4096 131072 6291456"),
        ("sysctl.net.ipv4.tcp_rmem = [1, 2, 3.5]", "1: sysctl.net.ipv4.tcp_rmem: a number is not a whole number"),
        ("mtu = \n", "1: Invalid value"),
        ("mtu = 1\nmtu = 2\n", "2: Cannot overwrite a value"),
        ("a = 1\nuser = '''", "2: Expected \"'''\" (at the end of the file)"),
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert complaints(write(tmp_path, text)) == [f"tunstack.toml:{expected}"]


def test_all_mistakes_are_told_in_order_of_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "[services.http]\nport = 0\n[sysctl]\nx = 1\n[services.echo]\nenabled = 3\n")
    assert [message.split(": ")[0] for message in complaints(path)] == ["tunstack.toml:2", "tunstack.toml:4", "tunstack.toml:6"]


def test_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tunstack.toml"
    path.write_bytes(b"mtu = 1500\nuser = '\xff'\n")
    assert complaints(path) == ["tunstack.toml:2: not UTF-8"]


def test_missing_file_is_told(tmp_path: Path) -> None:
    assert complaints(tmp_path / "none.toml") == ["cannot read the configuration none.toml: No such file or directory"]


def test_conflict_that_a_flag_makes_names_the_flag(tmp_path: Path) -> None:
    path = write(tmp_path, "host-address = '10.77.0.1/24'\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {settings.SERVE_ADDRESS.key: (IPv4Address("10.99.0.1"),)})
    assert caught.value.messages == ("--address: 10.99.0.1 is not in the interface's network 10.77.0.0/24 (--host-address 10.77.0.1/24)",)


def test_a_port_alone_may_be_a_number(tmp_path: Path) -> None:
    """As a service's is, and as it may be on the command line."""
    for text in ("9191", "'9191'", "'127.0.0.1:9191'"):
        path = tmp_path / "t.toml"
        path.write_text(f"metrics = {text}\n")
        assert load(path).metrics == ("127.0.0.1", 9191)
    path.write_text("metrics = true\n")
    with pytest.raises(UserError, match="metrics: must be a string, not true"):
        load(path)


def test_service_that_is_off_may_share_a_port(tmp_path: Path) -> None:
    config = load(write(tmp_path, "[services.http]\nport = 7\n[services.echo]\nenabled = false\n"))
    assert config.ports == {"http": 7, "discard": 9, "daytime": 13, "chargen": 19}


def test_written_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load(
        None,
        {
            settings.SERVE_TUN.key: 'o"dd\\',
            settings.HTTP_ROOT.key: tmp_path,
            settings.HTTP_UPLOAD.key: True,
            settings.SERVICE_ENABLED["discard"].key: False,
            settings.DRAIN_TIMEOUT.key: 1.5,
            settings.LINK.key: linkspec.parse("delay=1ms;up:loss=1%,gemodel=1%/2%"),
        },
        {"net.ipv4.tcp_rmem": (1, 2, 3), "net.ipv4.tcp_sack": False, "net.ipv4.tcp_congestion_control": "reno"},
    )
    assert load(write(tmp_path, to_toml(config))) == config


def test_every_knob_is_known_by_linux_name_and_takes_its_default() -> None:
    known = sysctls.defaults()
    assert "net.core.somaxconn" in known and "net.ipv4.tcp_fin_timeout" in known
    for name, value in known.items():
        text = " ".join(map(str, value)) if isinstance(value, tuple) else str(int(value)) if isinstance(value, bool) else str(value)
        assert sysctls.check(name, text) == value
    assert sysctls.build(known) == Sysctl()


def test_flags_are_distinct() -> None:
    flags = [setting.flag for setting in settings.SERVE_SETTINGS]
    assert len(set(flags)) == len(flags)


def test_a_congestion_control_that_there_is_not_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"there is no 'foo'; there is .*reno"):
        sysctls.build({"net.ipv4.tcp_congestion_control": "foo"})


def test_what_congestion_controls_there_are_cannot_be_set() -> None:
    """M-62."""
    with pytest.raises(ValueError, match="can only be read"):
        sysctls.check("net.ipv4.tcp_available_congestion_control", "reno")
