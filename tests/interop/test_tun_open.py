"""Opening a TUN interface: what the kernel has of it while we run and afterwards, and each thing that can be in the way."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from fcntl import ioctl
from ipaddress import IPv4Interface
from typing import Any

import pytest
import uvloop
from interop.namespaces import Namespace

from tunstack.device import tun
from tunstack.device.errors import DeviceError
from tunstack.device.netlink import with_netlink
from tunstack.device.tun import TunDevice
from tunstack.wire.flow import pack_address

pytestmark = pytest.mark.root

# As an ordinary user, nobody here, on a machine where /dev/net/tun is open to all: the one capability stands for its mode.
AS_NOBODY = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups"
    " --inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override --bounding-set=-all,+dac_override"
)
OPEN = """
import sys, time
from tunstack.device import tun
from tunstack.device.errors import DeviceError
from tunstack.device.tun import TunDevice
try:
    device = TunDevice.open("tunstack0", {settings})
except DeviceError as error:
    sys.exit(str(error))
print(device.host_address, device.mtu, device.offload, device.persistent, flush=True)
time.sleep({seconds})
"""


def python(settings: str = "", seconds: int = 0, prefix: str = "") -> list[str]:
    """Return a command that opens an interface, prints what it got and keeps it for that long."""
    return [*prefix.split(), sys.executable, "-c", OPEN.format(settings=settings, seconds=seconds)]


def refusal(namespace: Namespace, name: str = "tunstack0", **settings: Any) -> DeviceError:
    """Return the error that opening raises: one line, and nothing changed."""

    def state() -> tuple[str, list[str]]:
        shown = namespace.run("ip address").stdout
        # without what the kernel works out by itself, some time after an interface was attached to
        return re.sub("NO-CARRIER,|,LOWER_UP|state [A-Z]+", "", shown), os.listdir("/proc/self/fd")

    before = state()
    with pytest.raises(DeviceError) as caught:
        namespace.open_tun(name, **settings)
    assert "\n" not in str(caught.value)
    assert state() == before
    return caught.value


class TestOwnInterface:
    @pytest.mark.parametrize("offload", [True, False])
    def test_it_is_configured_and_up_and_gone_once_closed(self, namespace: Namespace, offload: bool) -> None:
        device = namespace.open_tun("t0", host_address="10.9.8.1/28", mtu=9000, offload=offload)
        shown = namespace.run("ip -d address show t0").stdout
        for part in ("mtu 9000", "LOWER_UP", "qlen 16384", "inet 10.9.8.1/28", f"pi off vnet_hdr {'on' if offload else 'off'} persist off"):
            assert part in shown
        assert "10.9.8.0/28 dev t0" in namespace.run("ip route").stdout
        assert (device.name, device.mtu, device.offload, device.persistent) == ("t0", 9000, offload, False)
        assert device.host_address == IPv4Interface("10.9.8.1/28")
        device.close()
        device.close()
        assert device.fileno() == -1
        assert namespace.links() == []

    @pytest.mark.parametrize("mtu", [88, 576, 65535])
    def test_the_limits_of_the_mtu_are_accepted(self, namespace: Namespace, mtu: int) -> None:
        namespace.open_tun(mtu=mtu)
        assert f"mtu {mtu} " in namespace.run("ip link show tunstack0").stdout

    def test_fifteen_characters_are_a_name(self, namespace: Namespace) -> None:
        namespace.open_tun("abcdefghijklmno")
        assert namespace.links() == ["abcdefghijklmno"]

    @pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
    def test_it_is_gone_after_a_crash(self, namespace: Namespace, signal_number: int) -> None:
        process = namespace.popen(python(seconds=60), stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"10.77.0.1/24 1500 True False\n"
        assert namespace.links() == ["tunstack0"]
        process.send_signal(signal_number)
        assert process.wait(10) == -signal_number
        assert namespace.links() == []

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test_it_opens_inside_a_running_event_loop(self, namespace: Namespace, run: Callable[..., None]) -> None:
        async def main() -> None:
            namespace.open_tun().close()
            await asyncio.sleep(0)

        run(main())

    def test_it_opens_where_uvloop_is_the_policy(self, namespace: Namespace) -> None:
        prefix = f"{sys.executable} -c"
        program = "import uvloop; uvloop.install()" + OPEN.format(settings="", seconds=0)
        assert namespace.run([*prefix.split(), program]).stdout.endswith("10.77.0.1/24 1500 True False\n")

    def test_opening_and_closing_leaves_no_descriptor(self, namespace: Namespace) -> None:
        namespace.open_tun().close()
        before = os.listdir("/proc/self/fd")
        for _ in range(5):
            namespace.open_tun().close()
        assert os.listdir("/proc/self/fd") == before

    def test_two_stacks_have_an_interface_each(self, namespace: Namespace) -> None:
        namespace.open_tun("a0", host_address="10.1.0.1/24")
        namespace.open_tun("b0", host_address="10.2.0.1/24")
        assert sorted(namespace.links()) == ["a0", "b0"]


class TestTakenOver:
    """A persistent interface, made and configured by an administrator, belongs to whom he made it for."""

    @staticmethod
    def made(namespace: Namespace, options: str = "user nobody", address: str = "10.9.9.1/24", mtu: int = 1400, up: bool = True) -> None:
        namespace.run(f"ip tuntap add dev tunstack0 mode tun {options}")
        namespace.run(f"ip link set tunstack0 mtu {mtu}")
        if address:
            namespace.run(f"ip address add {address} dev tunstack0")
        if up:
            namespace.run("ip link set tunstack0 up")

    @staticmethod
    def settings(namespace: Namespace) -> list[str]:
        """Return what an administrator sets of the interface. Flags and vnet_hdr are its user's, who sets them when he attaches."""
        shown = namespace.run("ip -d address show tunstack0").stdout + namespace.run("ip route").stdout
        return re.findall(r"\bUP\b|mtu \d+|qlen \d+|persist on|multi_queue on|user \w+|group \w+|inet .*|10\S* dev.* src \S+", shown)

    @pytest.mark.parametrize(
        "options", ["user nobody", "user nobody vnet_hdr", "user nobody multi_queue", "group nogroup multi_queue vnet_hdr", ""]
    )
    @pytest.mark.parametrize("offload", [True, False])
    def test_it_takes_no_capability_and_the_interface_stays_as_it_was(self, namespace: Namespace, options: str, offload: bool) -> None:
        self.made(namespace, options)
        before = self.settings(namespace)
        result = namespace.run(python(f"offload={offload}, addresses=[bytes((10, 9, 9, 2))]", prefix=AS_NOBODY))
        assert result.stdout == f"10.9.9.1/24 1400 {offload} True\n"
        assert self.settings(namespace) == before

    def test_its_link_names_and_owner_are_read(self, namespace: Namespace) -> None:
        self.made(namespace, "user nobody multi_queue")
        with namespace.entered():
            link = with_netlink(lambda netlink: netlink.link("tunstack0"))
        assert link is not None
        assert (link.kind, link.mtu, link.is_up) == ("tun", 1400, True)
        assert (link.tun_type, link.tun_persist, link.tun_multi_queue, link.tun_queues, link.tun_owner) == (1, True, True, 0, 65534)

    def test_the_next_user_without_offload_gets_plain_frames_even_after_a_crash(self, namespace: Namespace) -> None:
        self.made(namespace)
        process = namespace.popen(python(seconds=60, prefix=AS_NOBODY), stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline()
        assert "tcp-segmentation-offload: on" in namespace.run("ethtool -k tunstack0").stdout
        process.kill()
        process.wait(10)
        namespace.open_tun(offload=False)
        assert "tcp-segmentation-offload: off" in namespace.run("ethtool -k tunstack0").stdout

    def test_the_header_length_that_its_last_user_set_is_not_ours(self, namespace: Namespace) -> None:
        self.made(namespace)
        with namespace.entered():
            fd = os.open(tun.CLONE_DEVICE, os.O_RDWR)
        ioctl(fd, tun.TUNSETIFF, tun.IFREQ.pack(b"tunstack0", tun.IFF_TUN | tun.IFF_NO_PI | tun.IFF_VNET_HDR))
        ioctl(fd, tun.TUNSETVNETHDRSZ, struct.pack("i", 12))
        os.close(fd)
        device = namespace.open_tun()
        namespace.run("ping -c 1 -W 0.1 10.9.9.2", check=False)
        batch = device.read_batch()
        assert (len(batch.packets), batch.header_errors, batch.ignored) == (1, 0, 0)

    def test_closing_turns_the_offload_off(self, namespace: Namespace) -> None:
        self.made(namespace)
        namespace.open_tun().close()
        assert "tcp-segmentation-offload: off" in namespace.run("ethtool -k tunstack0").stdout

    @pytest.mark.parametrize("options", [None, "user daemon"])
    def test_it_is_given_back_after_root_was_given_up(self, namespace: Namespace, options: str | None) -> None:
        if options:
            self.made(namespace, options)
        drop = "from tunstack.daemon.privileges import drop_privileges; drop_privileges(); device.close()"
        namespace.run([sys.executable, "-c", OPEN.format(settings="", seconds=0) + drop])
        assert namespace.links() == (["tunstack0"] if options else [])
        if options:
            assert "tcp-segmentation-offload: off" in namespace.run("ethtool -k tunstack0").stdout

    def test_another_user_s_is_refused(self, namespace: Namespace) -> None:
        self.made(namespace, "user daemon")
        result = namespace.run(python(prefix=AS_NOBODY), check=False)
        assert result.returncode == 1
        assert result.stdout == "interface tunstack0 belongs to user daemon: run as its owner, or with CAP_NET_ADMIN\n"

    def test_one_of_a_group_that_we_are_not_in_is_refused(self, namespace: Namespace) -> None:
        self.made(namespace, "group daemon")
        result = namespace.run(python(prefix=AS_NOBODY), check=False)
        assert result.stdout == "interface tunstack0 belongs to another group: run as its owner, or with CAP_NET_ADMIN\n"

    def test_one_that_is_down_is_refused(self, namespace: Namespace) -> None:
        self.made(namespace, up=False)
        error = refusal(namespace)
        assert error.errno == errno.ENETDOWN and "ip link set tunstack0 up" in str(error)

    def test_one_without_address_is_refused(self, namespace: Namespace) -> None:
        self.made(namespace, address="")
        error = refusal(namespace)
        assert error.errno == errno.EADDRNOTAVAIL and "ip address add 10.77.0.1/24 dev tunstack0" in str(error)

    def test_one_with_too_small_an_mtu_is_refused(self, namespace: Namespace) -> None:
        self.made(namespace, mtu=68)
        assert str(refusal(namespace)) == "MTU 68 is out of range: 88 to 65535"

    def test_an_address_of_ours_must_be_reached_through_it(self, namespace: Namespace) -> None:
        self.made(namespace)
        error = refusal(namespace, addresses=[pack_address("10.9.9.2"), pack_address("10.9.7.2")])
        assert error.errno == errno.EADDRNOTAVAIL
        assert str(error) == "address 10.9.7.2 is not reached through interface tunstack0 (10.9.9.1/24)"
        namespace.run("ip route add 10.9.7.0/24 dev tunstack0")
        namespace.open_tun(addresses=[pack_address("10.9.7.2")])

    def test_the_host_s_own_address_is_not_ours(self, namespace: Namespace) -> None:
        self.made(namespace)
        assert refusal(namespace, addresses=[pack_address("10.9.9.1")]).errno == errno.EADDRINUSE

    def test_a_point_to_point_address_works(self, namespace: Namespace) -> None:
        self.made(namespace, address="10.9.9.1 peer 10.8.8.8")
        device = namespace.open_tun(addresses=[pack_address("10.8.8.8")])
        assert device.host_address == IPv4Interface("10.9.9.1/32")


class TestInTheWay:
    def test_no_capability(self, namespace: Namespace) -> None:
        result = namespace.run(python(prefix=AS_NOBODY), check=False)
        assert result.returncode == 1 and result.stdout.count("\n") == 1
        assert result.stdout.startswith("creating interface tunstack0 needs CAP_NET_ADMIN: run as root, or ")
        assert "`ip tuntap add dev tunstack0 mode tun user nobody`" in result.stdout

    @pytest.mark.parametrize(
        ("command", "kind"), [("ip link add tunstack0 type veth peer name other0", "veth"), ("ip tuntap add dev tunstack0 mode tap", "tap")]
    )
    def test_a_name_that_another_kind_of_interface_has(self, namespace: Namespace, command: str, kind: str) -> None:
        namespace.run(command)
        error = refusal(namespace)
        assert (error.errno, str(error)) == (errno.EEXIST, f"interface name tunstack0 is taken by a {kind} interface: choose another name")

    def test_lo_is_no_name_for_us(self, namespace: Namespace) -> None:
        assert "is taken" in str(refusal(namespace, "lo"))

    @pytest.mark.parametrize("options", ["", "multi_queue", None])
    def test_an_interface_that_another_process_has(self, namespace: Namespace, options: str | None) -> None:
        if options is not None:
            namespace.run(f"ip tuntap add dev tunstack0 mode tun {options}")
            namespace.run("ip address add 10.77.0.1/24 dev tunstack0")
            namespace.run("ip link set tunstack0 up")
        namespace.open_tun()
        error = refusal(namespace)
        assert error.errno == errno.EBUSY
        assert str(error) == "interface tunstack0 is in use by another process: end that one or choose another name"

    def test_an_interface_that_appears_while_we_look_is_not_reconfigured(
        self, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        namespace.run("ip tuntap add dev tunstack0 mode tun")
        monkeypatch.setattr(tun, "survey", lambda netlink, plan: None)
        assert refusal(namespace).errno == errno.EBUSY

    def test_a_host_address_in_use(self, namespace: Namespace) -> None:
        namespace.run("ip address add 10.77.0.1/32 dev lo")
        error = refusal(namespace)
        assert (error.errno, str(error)) == (errno.EADDRINUSE, "address 10.77.0.1 is already in use on interface lo: choose another subnet")

    def test_an_address_of_ours_in_use(self, namespace: Namespace) -> None:
        namespace.run("ip address add 10.77.0.2/32 dev lo")
        error = refusal(namespace, addresses=[pack_address("10.77.0.2")])
        assert str(error) == "address 10.77.0.2 is already in use on interface lo: choose another subnet"

    @pytest.mark.parametrize("other", ["10.77.0.129/25", "10.77.0.9/24", "10.77.3.1/16", "10.0.0.1/8"])
    def test_a_subnet_that_another_interface_is_on(self, namespace: Namespace, other: str) -> None:
        namespace.open_tun("other0", host_address=other)
        error = refusal(namespace)
        assert error.errno == errno.EADDRINUSE
        network = IPv4Interface(other).network
        assert str(error) == f"subnet 10.77.0.0/24 overlaps {network}, which is in use by interface other0: choose another subnet"

    @pytest.mark.parametrize("route", ["10.77.0.64/26 via 10.5.0.2", "10.77.0.0/24 dev other0", "blackhole 10.77.0.7/32"])
    def test_a_route_that_would_override_ours(self, namespace: Namespace, route: str) -> None:
        namespace.open_tun("other0", host_address="10.5.0.1/24")
        namespace.run(f"ip route add {route}")
        error = refusal(namespace)
        assert error.errno == errno.EADDRINUSE
        assert ("interface other0" in str(error)) != ("blackhole" in str(error))

    @pytest.mark.parametrize("route", ["default via 10.5.0.2", "10.0.0.0/8 via 10.5.0.2", "10.77.1.0/24 via 10.5.0.2"])
    def test_a_wider_or_other_route_is_not_in_the_way(self, namespace: Namespace, route: str) -> None:
        namespace.open_tun("other0", host_address="10.5.0.1/24")
        namespace.run(f"ip route add {route}")
        namespace.open_tun()
        assert "dev tunstack0" in namespace.run("ip route get 10.77.0.2").stdout

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("10.78.0.2", "address 10.78.0.2 is not within the interface's subnet 10.77.0.0/24"),
            ("10.77.0.1", "address 10.77.0.1 is the host's own: the stack needs another one of 10.77.0.0/24"),
            ("10.77.0.0", "address 10.77.0.0 is not usable: it is the address of the subnet 10.77.0.0/24 itself"),
            ("10.77.0.255", "address 10.77.0.255 is not usable: it is the broadcast address of 10.77.0.0/24"),
        ],
    )
    def test_an_address_of_ours_that_does_not_fit(self, namespace: Namespace, address: str, reason: str) -> None:
        assert str(refusal(namespace, addresses=[pack_address("10.77.0.2"), pack_address(address)])) == reason

    def test_both_addresses_of_a_31_are_hosts(self, namespace: Namespace) -> None:
        """RFC 3021."""
        namespace.open_tun(host_address="10.77.0.0/31", addresses=[pack_address("10.77.0.1")])
        assert isinstance(namespace.open_tun("b0", host_address="10.77.0.3/31", addresses=[pack_address("10.77.0.2")]), TunDevice)
