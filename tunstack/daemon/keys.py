"""`[[keys]]` of the configuration: secrets shared with peers, for TCP-AO and TCP MD5.

Read with the configuration, and again at SIGHUP: what is new is added, what is gone is taken away, so keys are rolled over by editing the
file. No message and no output of `--check-config` has a secret in it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tunstack.daemon.kinds import describe, quote, suggest

if TYPE_CHECKING:
    from tunstack.aio import Endpoint
    from tunstack.engine.keys import Key, Lifetime

SECRET_FIELDS = ("key", "key-file")
TIMES = ("send-from", "send-until", "accept-from", "accept-until")
_TYPES: dict[str, type] = {
    "peer": str,
    "port": int,
    "algorithm": str,
    "key": str,
    "key-file": str,
    "send-id": int,
    "recv-id": int,
    "covers-options": bool,
    **dict.fromkeys(TIMES, datetime),
}
_KIND_NAMES = {str: "a string", int: "an integer", bool: "true or false", datetime: "a date and time"}


class KeyMistake(ValueError):
    """A table is wrong; `name` is the key in it that is, empty: the table as a whole."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One table. Times are seconds since the epoch, None: no bound."""

    secret: bytes = field(repr=False)
    key_file: Path | None
    peer: str
    algorithm: str
    port: int
    send_id: int
    recv_id: int
    covers_options: bool
    times: tuple[float | None, float | None, float | None, float | None]  # as TIMES

    def build(self, to_engine: float) -> Key:
        """Return the engine's key; `to_engine` us are to be added to times of day."""
        from tunstack.engine.keys import ALWAYS, Key, Lifetime

        def lifetime(begin: float | None, end: float | None) -> Lifetime:
            return Lifetime(
                ALWAYS.begin if begin is None else round(begin * 1e6 + to_engine),
                ALWAYS.end if end is None else round(end * 1e6 + to_engine),
            )

        return Key(
            self.secret,
            self.algorithm,
            self.peer,
            self.port,
            self.send_id,
            self.recv_id,
            self.covers_options,
            lifetime(*self.times[:2]),
            lifetime(*self.times[2:]),
        )


def take(table: object, directory: Path) -> KeyConfig:
    """Return a table of the file, checked; KeyMistake says what is wrong. Paths are relative to `directory`."""
    if not isinstance(table, dict):
        raise KeyMistake("", f"must be tables, [[keys]], not {describe(table)}")
    for name, value in table.items():
        kind = _TYPES.get(name)
        if kind is None:
            raise KeyMistake(name, f"unknown key{suggest(name, _TYPES)}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise KeyMistake(name, f"must be {_KIND_NAMES[kind]}, not {describe(value)}")
    if "peer" not in table:
        raise KeyMistake("", 'whose key it is must be said: peer = "ADDRESS" or "NETWORK/PREFIX"')
    if len([name for name in SECRET_FIELDS if name in table]) != 1:
        raise KeyMistake("", 'must have either key = "..." or key-file = "FILE"')
    path = directory / table["key-file"] if "key-file" in table else None
    config = KeyConfig(
        table["key"].encode() if path is None else _read(path),
        path,
        table["peer"],
        table.get("algorithm", "hmac-sha-1-96"),
        table.get("port", 0),
        table.get("send-id", 0),
        table.get("recv-id", 0),
        table.get("covers-options", True),
        tuple(table[name].timestamp() if name in table else None for name in TIMES),  # type: ignore[arg-type]
    )
    try:
        config.build(0)
    except ValueError as error:
        raise KeyMistake("", str(error)) from None
    return config


def check(keys: Sequence[KeyConfig]) -> None:
    """ValueError if keys do not go together."""
    from tunstack.engine.keys import KeyChain

    KeyChain(key.build(0) for key in keys)


def _read(path: Path) -> bytes:
    """Return the octets of a key file, without the end of its line."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise KeyMistake("key-file", f"{path} is a directory")
        if mode & 0o007:
            raise KeyMistake("key-file", f"{path} is open to everybody: chmod 600 it")
        secret = path.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
        if not secret:
            raise KeyMistake("key-file", f"{path} is empty")
        return secret
    except PermissionError as error:  # at SIGHUP we are no longer who we were at the start
        raise KeyMistake("key-file", f"cannot read {path} as user {os.geteuid()}: {error.strerror}") from None
    except OSError as error:
        raise KeyMistake("key-file", f"cannot read {path}: {error.strerror}") from None


class ServeKeys:
    """The configured keys of a daemon's endpoint: exactly these, and no others."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._in_use: dict[KeyConfig, Key] = {}

    def use(self, configured: Sequence[KeyConfig]) -> int:
        """Go on with these; return how many came and went. A key that stays is the same one, and its connections do not notice."""
        to_engine = self._endpoint.now() - time.time() * 1e6
        before = self._in_use
        self._in_use = {config: before.get(config) or config.build(to_engine) for config in configured}
        self._endpoint.keys.replace(tuple(self._in_use.values()))
        return len(before.keys() ^ self._in_use.keys())


def to_toml(keys: Sequence[KeyConfig]) -> list[str]:
    """Write the tables as they would stand in a file, a secret that was in it left out."""
    lines: list[str] = []
    for key in keys:
        lines += ["", "[[keys]]", f"peer = {quote(key.peer)}", f"algorithm = {quote(key.algorithm)}"]
        lines.append("# key =  # not shown" if key.key_file is None else f"key-file = {quote(str(key.key_file.absolute()))}")
        if key.port:
            lines.append(f"port = {key.port}")
        if key.algorithm != "md5":
            lines += [
                f"send-id = {key.send_id}",
                f"recv-id = {key.recv_id}",
                f"covers-options = {'true' if key.covers_options else 'false'}",
            ]
        lines += [
            f"{name} = {datetime.fromtimestamp(at).astimezone().isoformat()}"
            for name, at in zip(TIMES, key.times, strict=True)
            if at is not None
        ]
    return lines
