"""What a user can ask wrongly of a TUN interface, as far as it shows without the kernel. One line each, nothing left open."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Interface
from pathlib import Path
from types import ModuleType

import pytest

from tunstack.device import tun
from tunstack.device.errors import DeviceError
from tunstack.device.tun import TunDevice
from tunstack.device.tunplan import MTU_MAX, MTU_MIN
from tunstack.wire import native, twin
from tunstack.wire.segment import RST, Segment


def refusal(name: str = "tunstack0", host_address: str = "10.77.0.1/24", mtu: int = 1500) -> DeviceError:
    """Return the error that opening raises, having checked its form."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(DeviceError) as caught:
        TunDevice.open(name, host_address=host_address, mtu=mtu)
    message = str(caught.value)
    assert message and "\n" not in message and not message.startswith("[Errno") and not message.endswith(".")
    assert os.listdir("/proc/self/fd") == before
    return caught.value


def test_a_name_has_at_most_fifteen_characters() -> None:
    error = refusal(name="tunstack-is-long")
    assert error.errno == errno.ENAMETOOLONG
    assert str(error) == "interface name 'tunstack-is-long' is too long: at most 15 characters"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:b", "tun%d", "a b", "a\tb", "a\n", "a\0b"])
def test_a_name_that_the_kernel_would_not_take_is_refused(name: str) -> None:
    error = refusal(name=name)
    assert error.errno == errno.EINVAL
    assert str(error).startswith(f"interface name {name!r} is not valid")


@pytest.mark.parametrize("mtu", [-1, 0, 68, MTU_MIN - 1, MTU_MAX + 1, 1 << 40])
def test_an_mtu_out_of_range_is_refused(mtu: int) -> None:
    error = refusal(mtu=mtu)
    assert (error.errno, str(error)) == (errno.EINVAL, f"MTU {mtu} is out of range: 88 to 65535")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not an IPv4 address with a prefix"),
        ("10.77.0.256/24", "is not an IPv4 address with a prefix"),
        ("10.77.0.1/33", "is not an IPv4 address with a prefix"),
        ("fd00::1/64", "is not an IPv4 address with a prefix"),
        ("example.org", "is not an IPv4 address with a prefix"),
        ("10.77.0.1", "leaves no address for the stack"),
        ("10.77.0.1/32", "leaves no address for the stack"),
        ("10.77.0.0/24", "it is the address of the subnet 10.77.0.0/24 itself"),
        ("10.77.0.255/24", "it is the broadcast address of 10.77.0.0/24"),
        ("127.0.0.2/8", "it is a loopback address"),
        ("224.0.0.1/24", "it is a multicast address"),
        ("0.0.0.1/8", "it is a reserved address"),
        ("255.255.255.254/24", "it is a reserved address"),
    ],
)
def test_a_host_address_that_no_host_can_bear_is_refused(text: str, reason: str) -> None:
    error = refusal(host_address=text)
    assert error.errno == errno.EINVAL
    assert reason in str(error) and (not text or text in str(error))


def test_without_the_clone_device_the_user_is_told_to_load_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tun, "CLONE_DEVICE", str(tmp_path / "net" / "tun"))
    error = refusal()
    assert error.errno == errno.ENOENT
    assert "modprobe tun" in str(error) and "--device" in str(error)


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENODEV, "modprobe tun"), (errno.EACCES, "may not be opened"), (errno.EPERM, "may not be opened"), (errno.EMFILE, "open files")],
)
def test_a_clone_device_that_does_not_open_is_explained(monkeypatch: pytest.MonkeyPatch, number: int, hint: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    error = refusal()
    assert error.errno == number and "/dev/net/tun" in str(error) and hint in str(error)


@pytest.mark.parametrize("codec", [native, twin], ids=lambda module: module.BACKEND)
@pytest.mark.parametrize("item", [Segment(bytes(12), 1, 0, RST, 0), bytes(40)], ids=["segment", "packet"])
def test_what_is_written_to_a_closed_device_reaches_nobody_who_has_its_descriptor_now(
    monkeypatch: pytest.MonkeyPatch, codec: ModuleType, item: Segment | bytes
) -> None:
    """An application may close the device and open a file within one callback, and the batch it came in still bring an answer."""
    monkeypatch.setattr(tun, "codec", codec)
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device = TunDevice(inside.detach(), "tun", IPv4Interface("10.77.0.1/24"), 1500, True, True, False)
    number = device.fileno()
    device.close()
    file, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if (elsewhere := file.detach()) != number:
        os.dup2(elsewhere, number)
        os.close(elsewhere)
    file = socket.socket(fileno=number)
    try:
        with pytest.raises(OSError) as caught:
            device.write(item)
        assert caught.value.errno == errno.EBADF
        with pytest.raises(BlockingIOError):
            other.recv(100, socket.MSG_DONTWAIT)
    finally:
        for end in (file, other, outside):
            end.close()
