"""Where control sockets are, how one is made, and which a command means.

unix(7). Root's are in /run/tunstack, a user's in his XDG_RUNTIME_DIR, each under the name of its interface. A daemon that has given
root up cannot take its socket away; one that nobody listens on is replaced by the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from pathlib import Path

ROOTS = Path("/run/tunstack")
ENVIRONMENT = "TUNSTACK_CONTROL"
BACKLOG = 64
LOCK_TIMEOUT = 1.0  # s
LOCK_RETRY = 0.01  # s
PATH_MAX = 107  # octets of a path in sockaddr_un

Identity = tuple[int, int]  # device and inode


def default_directory() -> Path | None:
    """Return where sockets are made when nobody says otherwise; None if this user has no place for them."""
    if os.geteuid() == 0:
        return ROOTS
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "tunstack" if runtime.startswith("/") else None


def directories() -> list[Path]:
    """Return where sockets are looked for when nobody says otherwise."""
    own = default_directory()
    return [ROOTS] if own in (ROOTS, None) else [ROOTS, own]


def make_default(name: str) -> Path:
    """Return the default path for an interface, with its directory made; OSError if there can be none."""
    directory = default_directory()
    if directory is None:
        raise OSError(errno.ENOENT, "XDG_RUNTIME_DIR is not set", "the usual place")
    directory.mkdir(mode=0o755, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise OSError(errno.EPERM, "it is not a directory that only we may write to", str(directory))
    return directory / f"{name}.sock"


def make(path: Path) -> socket.socket:
    """Return a listening socket at a path, mode 0600 from its first moment; OSError, EADDRINUSE if another program listens there.

    Two that try it at the same time do so one after the other, unless somebody keeps the directory locked (LOCK_TIMEOUT).
    """
    if len(os.fsencode(path)) > PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, f"a socket's path has at most {PATH_MAX} octets", str(path))
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _lock(directory)
        _make_room(path)
        mask = os.umask(0o177)
        try:
            made.bind(os.fspath(path))
        finally:
            os.umask(mask)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    finally:
        os.close(directory)
    return made


def _lock(directory: int) -> None:
    """Wait for our turn, but not long: whoever may read the directory can lock it, and must not keep us from starting."""
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return
            time.sleep(LOCK_RETRY)
        else:
            return


def _make_room(path: Path) -> None:
    """Take away a socket that nobody listens on; OSError EADDRINUSE if somebody does, or if it is something else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is something else under that name", str(path))
    if is_live(path):
        raise OSError(errno.EADDRINUSE, "another program listens on it", str(path))
    path.unlink()


def is_live(path: Path) -> bool:
    """Tell whether a program listens on a socket; one that we may not ask counts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its backlog is full, or it is not for us
            return True
    return True


def identity(path: Path) -> Identity:
    """Return what tells a file from another that takes its name."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def remove(path: Path, ours: Identity) -> None:
    """Take our socket away; it is left where that is no longer ours to do, or is another's by now."""
    try:
        if identity(path) == ours:
            path.unlink()
    except OSError:
        return  # root is given up; it is replaced by the next
