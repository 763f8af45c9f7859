"""What a listener offers: all that its options, the knobs and the path's MTU come to, worked out once for all that connect.

RFC 9293 3.7.1 (MSS), RFC 7323 2 (window scale), RFC 5482 (user timeout). Lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import usertimeout
from tunstack.engine.handshake import first_window, local_mss, window_scale

if TYPE_CHECKING:
    from tunstack.engine.options import SocketOptions
    from tunstack.engine.sysctl import Sysctl


class Terms:
    """The contents of SYN-ACKs, as long as `are_current`."""

    __slots__ = ("_mtu", "_options", "_sysctl", "_version", "_windows", "mss", "rcv_wscale", "user_timeout")

    def __init__(self, options: SocketOptions, sysctl: Sysctl, mtu: int) -> None:
        self._options = options
        self._sysctl = sysctl
        self._version = sysctl.version
        self._mtu = mtu
        self._windows: dict[int, int] = {}  # by octets of options in every later segment
        self.mss = local_mss(mtu, options)
        self.rcv_wscale = window_scale(options, sysctl)
        self.user_timeout = usertimeout.option_for(options, sysctl)  # the option, empty if there is none

    def are_current(self, options: SocketOptions, mtu: int) -> bool:
        """Whether nothing has changed since that they come from."""
        return self._options is options and self._mtu == mtu and self._version == self._sysctl.version

    def window(self, option_octets: int) -> int:
        """Return the first window, for segments with so many octets of options."""
        window = self._windows.get(option_octets)
        if window is None:
            window = self._windows[option_octets] = first_window(self._options, self._sysctl, self.mss - option_octets)
        return window
