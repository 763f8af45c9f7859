"""`[[keys]]` in the daemon's file: what it takes, what it refuses, and that no secret ever shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunstack.daemon.config import ConfigError, ServeConfig, load, to_toml
from tunstack.daemon.keys import ServeKeys
from tunstack.engine.keys import ALWAYS, KeyChain

SECRET = "hunter2-is-a-secret"


def write(directory: Path, text: str) -> Path:
    path = directory / "tunstack.toml"
    path.write_text(text)
    return path


def complaints(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert SECRET not in str(caught.value)
    return [message.replace(f"{path.parent}/", "") for message in caught.value.messages]


def test_every_field_of_a_key_is_taken(tmp_path: Path) -> None:
    """M-15, M-16."""
    (tmp_path / "bgp.key").write_text(SECRET + "\n")
    (tmp_path / "bgp.key").chmod(0o600)
    config = load(
        write(
            tmp_path,
            f"""
[[keys]]
peer = "10.77.0.0/24"
key = "{SECRET}"
[[keys]]
peer = "192.0.2.1"
port = 179
algorithm = "aes-128-cmac-96"
key-file = "bgp.key"
send-id = 3
recv-id = 4
covers-options = false
send-from = 2026-01-01T00:00:00Z
accept-until = 2026-12-31T00:00:00Z
[[keys]]
peer = "198.51.100.7"
algorithm = "md5"
key = "{SECRET}"
""",
        )
    )
    first, second, third = (key.build(1000) for key in config.keys)
    assert (first.peer, first.algorithm, first.secret, first.port) == ("10.77.0.0/24", "hmac-sha-1-96", SECRET.encode(), 0)
    assert first.send == first.accept == ALWAYS and first.covers_options
    assert (second.peer, second.port, second.send_id, second.recv_id, second.secret) == ("192.0.2.1/32", 179, 3, 4, SECRET.encode())
    assert not second.covers_options and second.send.begin == 1767225600_000_000 + 1000 and second.send.end == ALWAYS.end
    assert second.accept.begin == ALWAYS.begin and second.accept.end == 1798675200_000_000 + 1000
    assert third.algorithm == "md5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys = 1", ":1: keys: must be tables, [[keys]], not an integer"),
        ("[keys]\npeer = '192.0.2.1'", ":1: keys: must be tables, [[keys]], not a table"),
        (f"[[keys]]\nkey = '{SECRET}'", ':1: keys: whose key it is must be said: peer = "ADDRESS" or "NETWORK/PREFIX"'),
        ("[[keys]]\npeer = '192.0.2.1'", ':1: keys: must have either key = "..." or key-file = "FILE"'),
        (f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nsend_id = 1", ":4: keys.send_id: unknown key (did you mean send-id?)"),
        (f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nsend-id = 'x'", ":4: keys.send-id: must be an integer, not a string"),
        (f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nsend-id = 256", ":1: keys: a key's id is 0 to 255: 256, 0"),
        (f"[[keys]]\npeer = '192.0.2.1'\nkey = ['{SECRET}']", ":3: keys.key: must be a string, not an array"),
        ("[[keys]]\npeer = '192.0.2.1'\nkey = ''", ":1: keys: a secret has 1 to 80 octets"),
        (
            f"[[keys]]\npeer = '192.0.2.1/24'\nkey = '{SECRET}'",
            ":1: keys: not an IPv4 network or address (or bits beyond the prefix are set): '192.0.2.1/24'",
        ),
        (
            f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nalgorithm = 'sha1'",
            ":1: keys: there is no signature algorithm 'sha1'; there is hmac-sha-1-96, aes-128-cmac-96, md5",
        ),
        (
            f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nalgorithm = 'md5'\nsend-id = 1",
            ":1: keys: MD5 keys have neither ids nor lifetimes: nothing in a segment says which key it was signed with",
        ),
        (
            f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\n[[keys]]\npeer = '192.0.2.1'\nkey = 'x{SECRET}'",
            ":4: keys: the peers 192.0.2.1/32 have a key with send_id 0 and recv_id 0 already",
        ),
        (
            f"[[keys]]\npeer = '192.0.2.0/24'\nkey = '{SECRET}'\n[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nalgorithm = 'md5'",
            ":4: keys: a peer has keys of TCP-AO or of MD5, not of both: 192.0.2.1/32 and 192.0.2.0/24",
        ),
        ("[[keys]]\npeer = '192.0.2.1'\nkey-file = 'none'", ":3: keys.key-file: cannot read none: No such file or directory"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_without_the_secret(tmp_path: Path, text: str, message: str) -> None:
    """M-15."""
    assert complaints(write(tmp_path, text)) == ["tunstack.toml" + message]


def test_a_key_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    """M-15."""
    (tmp_path / "open.key").write_text(SECRET)
    (tmp_path / "open.key").chmod(0o644)
    path = write(tmp_path, "[[keys]]\npeer = '192.0.2.1'\nkey-file = 'open.key'")
    assert complaints(path) == ["tunstack.toml:3: keys.key-file: open.key is open to everybody: chmod 600 it"]


def test_who_cannot_read_a_key_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M-15: at SIGHUP the daemon is no longer who read it at the start."""

    def refuse(path: Path) -> bytes:
        if path.name != "a.key":
            return read(path)
        raise PermissionError(13, "Permission denied")

    read = Path.read_bytes
    (tmp_path / "a.key").touch(mode=0o600)
    path = write(tmp_path, "[[keys]]\npeer = '192.0.2.1'\nkey-file = 'a.key'")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert complaints(path) == ["tunstack.toml:3: keys.key-file: cannot read a.key as user 65534: Permission denied"]


def test_a_key_file_that_has_no_key_is_named(tmp_path: Path) -> None:
    """M-15: a directory is not to be made mode 600."""
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "empty.key").touch(mode=0o600)
    for name, message in (("folder", "is a directory"), ("empty.key", "is empty")):
        path = write(tmp_path, f"[[keys]]\npeer = '192.0.2.1'\nkey-file = '{name}'")
        assert complaints(path) == [f"tunstack.toml:3: keys.key-file: {name} {message}"]


def test_the_configuration_that_is_printed_has_key_files_but_no_secret(tmp_path: Path) -> None:
    """M-15: what is printed gives the same again where the secrets are in files."""
    (tmp_path / "a.key").write_text(SECRET)
    (tmp_path / "a.key").chmod(0o600)
    config = load(write(tmp_path, "[[keys]]\npeer = '192.0.2.0/24'\nkey-file = 'a.key'\nsend-id = 2\naccept-from = 2026-01-01T00:00:00Z"))
    assert load(write(tmp_path, to_toml(config))) == config
    config = load(write(tmp_path, f"[[keys]]\npeer = '192.0.2.0/24'\nkey = '{SECRET}'"))
    assert SECRET not in to_toml(config) and SECRET not in repr(config)


class _Endpoint:
    def __init__(self) -> None:
        self.keys = KeyChain()

    def now(self) -> int:
        return 0


def test_a_key_that_stays_in_the_file_stays_the_same_key(tmp_path: Path) -> None:
    """M-15: the clock was stepped meanwhile; what has not changed is not noticed by its connections."""
    config: ServeConfig = load(write(tmp_path, f"[[keys]]\npeer = '192.0.2.1'\nkey = '{SECRET}'\nsend-until = 2027-01-01T00:00:00Z"))
    endpoint = _Endpoint()
    keys = ServeKeys(endpoint)  # type: ignore[arg-type]
    assert keys.use(config.keys) == 1
    (first,) = endpoint.keys
    other = replace(config.keys[0], send_id=9, recv_id=9)
    assert keys.use((*config.keys, other)) == 1
    assert endpoint.keys.keys[0] is first and len(endpoint.keys) == 2
    assert keys.use((other,)) == 1 and keys.use(()) == 1 and not len(endpoint.keys)
