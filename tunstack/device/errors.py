"""What can go wrong with a device that a user can put right."""

from __future__ import annotations


class DeviceError(OSError):
    """A device cannot be opened as asked. `str()` is one line for the user: what is wrong and what to do."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        return str(self.strerror)
