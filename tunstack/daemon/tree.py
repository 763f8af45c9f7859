"""A directory that strangers may read: opening, listing and replacing files in it and nowhere else.

Every step of a path is taken from the open directory before it, by one name and without following links
(openat(2) with O_NOFOLLOW), so nothing that is changed in between leads out. A symbolic link is read and walked by
the same steps: it works as long as it stays inside, and a `..` at the top or an absolute target does not.
Descriptors that are returned are the caller's to close. All of it may block; call it in a thread.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

# Uploads that are not complete are in the directory that they go to, under this name; it is neither served nor listed.
UPLOAD_PREFIX = ".tunstack-upload-"

_LONGEST_CHAIN = 40  # symbolic links that one path may lead through, as in Linux
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # should a FIFO slip in, it must not hang us


class OutsideError(PermissionError):
    """The path leads out of the tree, or to something that is neither file nor directory."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EACCES, message)


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a directory, as a listing shows it. `size` in octets, `modified` in seconds since 1970."""

    name: str
    is_directory: bool
    size: int
    modified: float


class Tree:
    """The tree below one directory. It keeps the directory open, and so needs no right to what is above it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._root)

    def fileno(self) -> int:
        """Return the directory's descriptor."""
        return self._root

    def check_access(self, write: bool) -> None:
        """Raise OSError if the process, as it is now, may not list the directory (or not make files in it)."""
        os.close(os.open(".", _DIRECTORY, dir_fd=self._root))
        if write and not os.access(".", os.W_OK, dir_fd=self._root, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def open(self, names: Sequence[str]) -> tuple[int, os.stat_result]:
        """Open a file or directory for reading; return its descriptor and status.

        OutsideError if the path leads out; FileNotFoundError, NotADirectoryError, PermissionError as open(2) has them.
        """
        with _Walk(self._root) as walk:
            name = walk.to_parent(names)
            if name is None:
                descriptor = os.dup(walk.directory)
            else:
                _check_kind(os.stat(name, dir_fd=walk.directory, follow_symlinks=False).st_mode)
                descriptor = os.open(name, _FILE, dir_fd=walk.directory)
        status = os.fstat(descriptor)
        try:
            _check_kind(status.st_mode)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor, status

    def open_parent(self, names: Sequence[str]) -> int:
        """Open the directory that a path's last name is in; whether there is such a name does not matter."""
        if not names:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        check_name(names[-1])
        with _Walk(self._root) as walk:
            walk.enter(names[:-1])
            return os.dup(walk.directory)


class Upload:
    """A file on its way in: written under a name of its own, it takes its place in one step when it is complete.

    Call `write` any number of times, then `commit`; `close` in any case, which removes what was not committed.
    """

    def __init__(self, tree: Tree, names: Sequence[str]) -> None:
        self._directory = tree.open_parent(names)
        self._name = names[-1]
        self._temporary = UPLOAD_PREFIX + secrets.token_hex(8)  # "" once it has its place
        self._file = -1  # -1 while it is not open
        try:
            if self._is_directory():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._temporary, flags, 0o644, dir_fd=self._directory)
        except OSError:
            os.close(self._directory)
            raise

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append octets."""
        data = memoryview(b"".join(chunks))
        while data:
            data = data[os.write(self._file, data) :]

    def commit(self) -> bool:
        """Put the file in its place; tell whether there was none of that name before.

        It is atomic for who reads the directory; a power failure may lose it, for nothing waits for the disk.
        """
        self._close_file()  # a file system may report here that it could not write
        try:
            os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            is_new = False
        except FileNotFoundError:
            is_new = True
        os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = ""
        return is_new

    def close(self) -> None:
        """Close the file; remove it, unless it was committed."""
        try:
            self._close_file()
        finally:
            try:
                if self._temporary:
                    os.unlink(self._temporary, dir_fd=self._directory)
            finally:
                os.close(self._directory)

    def _close_file(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _is_directory(self) -> bool:
        try:
            return stat.S_ISDIR(os.stat(self._name, dir_fd=self._directory, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False


def list_directory(descriptor: int) -> list[Entry]:
    """Return what an open directory has that can be served: files and directories, links that lead to either not included."""
    entries = []
    with os.scandir(descriptor) as found:
        for item in found:
            if item.name.startswith(UPLOAD_PREFIX):
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:  # gone in the meantime
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                entries.append(Entry(item.name, stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime))
    return sorted(entries, key=lambda entry: (not entry.is_directory, entry.name))


def check_name(name: str) -> None:
    """Raise OutsideError unless this is one plain name in a directory, and one that may be seen."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or name.startswith(UPLOAD_PREFIX):
        raise OutsideError(f"not a name: {name!r}")


def _check_kind(mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutsideError("neither a file nor a directory")


class _Walk:
    """A way down a tree: the directories from the root to where we are, all open, so that `..` goes back by them."""

    def __init__(self, root: int) -> None:
        self._opened: list[int] = []  # below the root; ours to close
        self._root = root
        self._links = 0

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._opened:
            os.close(self._opened.pop())

    @property
    def directory(self) -> int:
        """The descriptor of the directory that the walk has come to; not to be closed."""
        return self._opened[-1] if self._opened else self._root

    def enter(self, names: Sequence[str]) -> None:
        """Go down a path, all of it directories."""
        name = self.to_parent(names)
        if name is not None:
            self._opened.append(os.open(name, _DIRECTORY, dir_fd=self.directory))

    def to_parent(self, names: Sequence[str]) -> str | None:
        """Go to the directory that has what a path leads to; return its name there, which is no link (None: the directory itself)."""
        for name in names:
            check_name(name)
        left = list(reversed(names))
        while left:
            name = left.pop()
            if name in ("", "."):  # in a link's target only
                continue
            if name == "..":
                if not self._opened:
                    raise OutsideError("a link leads out of the tree")
                os.close(self._opened.pop())
                continue
            target = self._read_link(name)
            if target is not None:
                left.extend(reversed(target))
            elif left:
                self._opened.append(os.open(name, _DIRECTORY, dir_fd=self.directory))
            else:
                return name
        return None

    def _read_link(self, name: str) -> list[str] | None:
        """Return the parts of a symbolic link's target, or None if the name is no link."""
        try:
            target = os.readlink(name, dir_fd=self.directory)
        except OSError as error:
            if error.errno == errno.EINVAL:  # readlink(2): not a symbolic link
                return None
            raise
        self._links += 1
        if self._links > _LONGEST_CHAIN:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            raise OutsideError("a link leads out of the tree")
        return target.split("/")
