"""What setting a socket option does to a connection that runs: socket(7), tcp(7). Times are int microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ackpolicy, control, input, receivewindow, sendbuffer, usertimeout
from tunstack.engine.delivery import deliver
from tunstack.engine.handshake import buffer_limits
from tunstack.engine.timers import NEVER

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


def put(conn: Connection, name: str, value: object, now: int) -> None:
    """Store a value, known to be right, and let it take effect."""
    if name == "congestion" and value is not None:
        control.change(conn, str(value), now)
    was = getattr(conn.options, name)
    if value == was:
        options = conn.options  # it may be the listener's, and stays so; setting it has effects all the same
    else:
        options = conn.options = conn.options.having(name, value)
    if name == "keys":
        _put_keys(conn, was, now)
        return
    if name == "keepalive":
        if not value:
            conn.keepalive_at = NEVER
        elif not was:
            conn.start_keepalive(now)
        conn.mark_dirty()  # else nobody looks at the new deadline
    elif name == "keepidle" and options.keepalive:
        conn.start_keepalive(conn.last_received_at)
        conn.mark_dirty()
    elif name == "max_pacing_rate":
        control.limit_pacing_rate(conn)
    elif name in ("nodelay", "cork"):
        conn.mark_dirty()
    elif name == "user_timeout_advertise":
        conn.uto_due = usertimeout.is_enabled(options, conn.stack.sysctl)
    elif name == "oobinline":
        deliver(conn)
    elif name == "sndbuf":
        conn.tx.sndbuf = sendbuffer.flight_limit(options.sndbuf, conn.stack.sysctl)
    elif conn.rx is not None:
        _put_receiving(conn, name, value)


def _put_keys(conn: Connection, was: object, now: int) -> None:
    try:
        conn.stack.use_keys().rekey(conn, now)
    except OSError:
        conn.options = conn.options.having("keys", was)
        raise


def _put_receiving(conn: Connection, name: str, value: object) -> None:
    rx = conn.rx
    if name == "quickack":
        if ackpolicy.set_quickack(rx, int(value or 0)):  # type: ignore[call-overload]
            input.acknowledge_now(conn)
    elif name == "rcvbuf":
        receivewindow.set_rcvbuf(rx, buffer_limits(conn.options, conn.stack.sysctl)[0])
    elif name == "window_clamp":
        receivewindow.set_user_clamp(rx, conn.options.window_clamp)
