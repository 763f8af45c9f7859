"""Where control sockets are, how they are made, and which one a command means."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunstack.daemon import controlclient, controlsocket
from tunstack.daemon.control import Control, credentials, for_interface
from tunstack.daemon.controlclient import ControlClient, ControlError, choose
from tunstack.daemon.errors import UserError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a place of our own the usual one."""
    monkeypatch.delenv(controlsocket.ENVIRONMENT, raising=False)
    place = tmp_path / "tunstack"
    monkeypatch.setattr(controlsocket, "default_directory", lambda: place)
    monkeypatch.setattr(controlsocket, "ROOTS", place)
    return place


def refused(path: Path) -> tuple[int | None, str]:
    with pytest.raises(OSError) as caught:
        controlsocket.make(path)
    return caught.value.errno, caught.value.strerror


def test_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with controlsocket.make(tmp_path / "a.sock") as made:
            status = (tmp_path / "a.sock").stat()
            assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
            assert not made.getblocking()
        assert os.umask(0) == 0  # as it was
    finally:
        os.umask(mask)


def test_socket_that_nobody_serves_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    first = controlsocket.make(path)
    assert refused(path) == (errno.EADDRINUSE, "another program listens on it")
    first.close()
    assert path.exists() and not controlsocket.is_live(path)
    with controlsocket.make(path):
        assert controlsocket.is_live(path)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("precious")
    assert refused(path) == (errno.EEXIST, "there is something else under that name")
    path.unlink()
    (tmp_path / "target").write_text("precious")
    path.symlink_to(tmp_path / "target")
    assert refused(path)[0] == errno.EEXIST
    assert (tmp_path / "target").read_text() == "precious"


def test_who_holds_a_lock_on_the_directory_keeps_nobody_from_making_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who can read a directory can lock it, and /run/tunstack can be read by all."""
    monkeypatch.setattr(controlsocket, "LOCK_TIMEOUT", 0.02)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    made: list[socket.socket] = []
    maker = threading.Thread(target=lambda: made.append(controlsocket.make(tmp_path / "a.sock")), daemon=True)
    try:
        maker.start()
        maker.join(10)
        assert made
    finally:
        os.close(held)
        maker.join(10)
        for each in made:
            each.close()


def test_path_must_fit_a_socket_address(tmp_path: Path) -> None:
    assert refused(tmp_path / ("a" * 200))[0] == errno.ENAMETOOLONG
    assert refused(tmp_path / "nowhere" / "a.sock")[0] == errno.ENOENT


def test_closing_takes_the_socket_away_but_not_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    control = Control(path)
    control.close()
    assert not path.exists()
    control = Control(path)
    path.unlink()
    with controlsocket.make(path):
        control.close()
        control.close()
        assert path.exists()


def test_usual_place_is_made_and_must_be_ours(place: Path) -> None:
    assert controlsocket.make_default("tun9") == place / "tun9.sock"
    assert stat.S_IMODE(place.stat().st_mode) & 0o022 == 0
    place.chmod(0o777)
    with pytest.raises(OSError, match="only we may write"):
        controlsocket.make_default("tun9")
    place.rmdir()
    place.symlink_to("/tmp")
    with pytest.raises(OSError, match="only we may write"):
        controlsocket.make_default("tun9")


def test_daemon_goes_on_without_the_usual_socket_but_not_without_one_that_was_asked_for(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    path = controlsocket.make_default("tun9")
    with controlsocket.make(path):
        second = for_interface(None, "tun9")
        assert second is not None and second.path == path.with_name("tun9-2.sock")
        assert [record.getMessage() for record in caplog.records] == [f"control socket: {second.path} (another program has the usual one)"]
        caplog.clear()
        monkeypatch.setattr("tunstack.daemon.control.NAMESAKES_MAX", 2)
        assert for_interface(None, "tun9") is None
        assert [record.getMessage() for record in caplog.records] == [
            f"no control socket: {second.path}: another program listens on it (choose another place with --control)"
        ]
        second.close()
        with pytest.raises(UserError, match=r"a\.sock cannot be made: No such file"):
            for_interface(tmp_path / "nowhere" / "a.sock", "tun9")
        with pytest.raises(UserError, match="another program listens on it"):
            for_interface(path, "tun9")
    assert for_interface("none", "tun9") is None
    control = for_interface(None, "tun9")
    assert control is not None and control.path == path
    control.close()


def test_user_without_a_runtime_directory_has_no_usual_place(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert for_interface(None, "tun9") is None
    assert "XDG_RUNTIME_DIR is not set" in caplog.text
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert controlsocket.default_directory() == Path("/run/user/1000/tunstack")
    assert controlsocket.directories() == [Path("/run/tunstack"), Path("/run/user/1000/tunstack")]


def test_command_means_the_named_socket_then_the_environments_then_the_only_live_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no program of ours runs"):
        choose(None)
    place.mkdir(mode=0o755)
    controlsocket.make(place / "dead.sock").close()
    with controlsocket.make(place / "tun1.sock"):
        assert choose(None) == place / "tun1.sock"
        with controlsocket.make(place / "tun2.sock"):
            with pytest.raises(UserError, match=r"several.*tun1\.sock, .*tun2\.sock; say which, with --control"):
                choose(None)
            monkeypatch.setenv(controlsocket.ENVIRONMENT, "/from/environment")
            assert choose(None) == Path("/from/environment")
            assert choose("/given") == Path("/given")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("missing", "there is no such socket"), ("dead", "nobody listens on it any more"), ("file", "it is no socket")],
)
def test_daemon_that_cannot_be_reached_is_one_line(tmp_path: Path, kind: str, reason: str) -> None:
    if kind == "dead":
        controlsocket.make(tmp_path / "a.sock").close()
    elif kind == "file":
        (tmp_path / "a.sock").touch()
    with pytest.raises(UserError, match=reason):
        ControlClient(tmp_path / "a.sock")


def test_credentials_are_the_peers() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = credentials(ours)
        assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """A server that answers each line with the next of a list; what is in it is the test's."""
    path = tmp_path / "fake.sock"
    answers: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.fspath(path))
    listening.listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as file:
            while answers and file.readline():
                connection.sendall(answers.pop(0))

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, answers
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "it hung up"),
        (b'{"version": 1, "id": 1, "resu', "it hung up"),
        (b"<html>\n", "its answer is not JSON"),
        (b"[1]\n", "its answer is no JSON object"),
        (b'{"version": 2, "id": 1, "result": 1}\n', "its answer is not to our question"),
        (b'{"version": 1, "id": 5, "result": 1}\n', "its answer is not to our question"),
        (b'{"version": 1, "id": null, "error": {"code": "busy", "message": "too many"}}\n', "fake.sock: too many"),
        (b'{"version": 1, "id": 1, "part": [{"a": 1}]}\n', "it hung up"),
    ],
)
def test_client_says_in_a_line_what_is_wrong_with_an_answer(server: tuple[Path, list[bytes]], answer: bytes, message: str) -> None:
    path, answers = server
    answers.append(answer)
    with ControlClient(path) as client, pytest.raises(UserError, match=message):
        client.call("version")


def test_client_takes_pieces_and_errors(server: tuple[Path, list[bytes]]) -> None:
    path, answers = server
    answers += [
        b'{"version": 1, "id": 1, "part": [1, 2]}\n{"version": 1, "id": 1, "part": [3]}\n'
        b'{"version": 1, "id": 1, "result": {"records": 3}}\n',
        b'{"version": 1, "id": 2, "error": {"code": "ESRCH", "message": "nobody"}}\n',
        b'{"version": 1, "id": 3, "part": [1]}\n{"version": 1, "id": 3, "error": {"code": "internal", "message": "x"}}\n',
    ]
    with ControlClient(path) as client:
        assert list(client.stream("sockets")) == [1, 2, 3]
        with pytest.raises(ControlError, match="nobody") as caught:
            client.call("kill")
        assert caught.value.code == "ESRCH"
        with pytest.raises(ControlError):
            list(client.stream("sockets"))


def test_client_and_server_speak_the_same_version() -> None:
    from tunstack.daemon.methods import PROTOCOL

    assert controlclient.PROTOCOL == PROTOCOL
