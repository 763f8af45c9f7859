"""The engine's knobs as text, and as a folder of files like /proc/sys/net.

Scripts set knobs with sysctl(8) in the network namespace that they run in; the plug-in reads them back from there.
"""

from __future__ import annotations

from pathlib import Path

from tunstack.engine import Sysctl, congestion_controls
from tunstack.engine.sysctl import KNOBS

FOLDERS = ("ipv4", "core")
KINDS = {knob.field: type(knob.default) for knob in KNOBS.values() if knob.effect != "never"}


def set_sysctl(sysctl: Sysctl, name: str, value: str) -> None:
    """Set a knob from its text; AttributeError if there is none of this name, ValueError if the text does not fit it."""
    kind = KINDS.get(name)
    if kind is None:
        raise AttributeError(f"no knob {name!r}")
    words = value.split()
    if kind is str:
        setattr(sysctl, name, value.strip())
        return
    numbers = [_to_int(name, word) for word in words]
    old = getattr(sysctl, name)
    if isinstance(old, tuple):
        if len(numbers) != len(old):
            raise ValueError(f"{name} takes {len(old)} numbers, not {value!r}")
        setattr(sysctl, name, tuple(numbers))
    elif len(numbers) != 1:
        raise ValueError(f"{name} takes a number, not {value!r}")
    else:
        setattr(sysctl, name, bool(numbers[0]) if kind is bool else numbers[0])


def _to_int(name: str, word: str) -> int:
    try:
        return int(word, 0)
    except ValueError:
        raise ValueError(f"{name} takes a number, not {word!r}") from None


class SysctlFolder:
    """Keeps a Sysctl in step with a folder: `read` takes over the files that changed since the last time.

    What the folder lacks keeps its value. The congestion control stays as it is where the folder names one that we have not, and until
    somebody sets another: a new namespace begins with the machine's, and may not even choose what is the default elsewhere.
    """

    def __init__(self, folder: Path, sysctl: Sysctl) -> None:
        self._sysctl = sysctl
        self._seen: dict[Path, str] = {}
        self._files = [(name, path) for name in KINDS for path in (folder / part / name for part in FOLDERS) if path.exists()]
        for name, path in self._files:
            if name == "tcp_congestion_control":
                self._seen[path] = path.read_text()

    def read(self) -> None:
        """Take over what changed."""
        for name, path in self._files:
            try:
                text = path.read_text()
            except OSError:  # some are root's alone
                continue
            if self._seen.get(path) == text:
                continue
            self._seen[path] = text
            if name == "tcp_congestion_control" and text.strip() not in congestion_controls():
                continue
            set_sysctl(self._sysctl, name, text)
