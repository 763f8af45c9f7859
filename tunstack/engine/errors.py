"""The errors that a socket would give, as OSError with the errno.

Python turns the errno into the matching subclass (ConnectionResetError, TimeoutError, ...). The texts are those of the C library;
they stand here because the engine has no operating system to ask.
"""

from __future__ import annotations

import errno

TEXTS = {
    "EADDRINUSE": "Address already in use",
    "EADDRNOTAVAIL": "Cannot assign requested address",
    "EBUSY": "Device or resource busy",
    "EEXIST": "File exists",
    "EKEYREJECTED": "Key was rejected by service",
    "EAGAIN": "Resource temporarily unavailable",
    "ECONNABORTED": "Software caused connection abort",
    "ECONNREFUSED": "Connection refused",
    "ECONNRESET": "Connection reset by peer",
    "EHOSTUNREACH": "No route to host",
    "EINVAL": "Invalid argument",
    "EISCONN": "Transport endpoint is already connected",
    "EMSGSIZE": "Message too long",
    "ENETDOWN": "Network is down",
    "ENETUNREACH": "Network is unreachable",
    "ENOENT": "No such file or directory",
    "ENOPROTOOPT": "Protocol not available",
    "ENOTCONN": "Transport endpoint is not connected",
    "EOPNOTSUPP": "Operation not supported",
    "EPIPE": "Broken pipe",
    "EPROTO": "Protocol error",
    "ETIMEDOUT": "Connection timed out",
}


def socket_error(name: str) -> OSError:
    """Return the OSError for an errno's name, for example `socket_error("ECONNRESET")`."""
    return OSError(getattr(errno, name), TEXTS[name])


def errno_error(number: int) -> OSError:
    """Return the OSError for an errno's number."""
    name = errno.errorcode[number]
    return OSError(number, TEXTS.get(name, name))
