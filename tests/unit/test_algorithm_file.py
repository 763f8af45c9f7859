"""A congestion control from a user's file: how it is named, and the one line for each mistake. M-38."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunstack.cli import main
from tunstack.cli.nc import parse
from tunstack.daemon.algorithm import Algorithm, Choice, Prepared, prepare
from tunstack.daemon.config import load, to_toml
from tunstack.daemon.errors import UserError
from tunstack.sim.world import World

GOOD = """
from dataclasses import dataclass
from tunstack.congestion import CongestionControl

@dataclass
class Notes:
    acks: int = 0

class Steady(CongestionControl):
    def on_ack(self, acked, flight, rtt, now, cwnd_limited):
        if self.cwnd > 50_000:
            self.cwnd = 1 // 0
        self.cwnd += acked

class steady_name(CongestionControl):
    name = "reno"

class Demanding(CongestionControl):
    def __init__(self, mss):
        pass

VALUE = 7
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "mycc.py"
    path.write_text(text)
    return path


def use(text: str) -> Prepared:
    """Put an algorithm to use in a stack of its own, as `serve` and `nc` do."""
    prepared = prepare(Algorithm().from_text(text))
    assert prepared is not None
    host, _, _ = World(1).pair()
    prepared.use(host.stack)
    return prepared


def complaint(path: Path, name: str) -> str:
    with pytest.raises(UserError) as caught:
        use(f"{path}:{name}")
    (message,) = caught.value.messages
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("reno", Choice("reno")),
        ("mycc.py:MyCC", Choice("MyCC", Path("mycc.py"))),
        ("/a b/c:d.py:X", Choice("X", Path("/a b/c:d.py"))),
    ],
)
def test_a_choice_is_a_name_or_a_class_in_a_file(text: str, choice: Choice) -> None:
    assert Algorithm().from_text(text) == choice
    assert str(choice) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mycc.py", "which class of mycc.py? Write mycc.py:CLASS"),
        ("mycc.py:", "'mycc.py:' is not of the form FILE.py:CLASS"),
        (":MyCC", "':MyCC' is not of the form FILE.py:CLASS"),
        ("mycc.py:My CC", "is not of the form FILE.py:CLASS"),
        ("MyCC", "'MyCC' is neither a congestion control's name nor FILE.py:CLASS"),
        ("", "'' is neither"),
    ],
)
def test_what_is_neither_says_so(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Algorithm().from_text(text)
    assert message in str(caught.value)


def test_a_class_of_a_file_is_what_new_connections_use(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    host, _, _ = World(1).pair()
    prepared = prepare(Choice("Steady", path))
    assert prepared is not None
    prepared.use(host.stack)
    assert host.stack.sysctl.tcp_congestion_control == "steady"
    control = host.stack.algorithms["steady"](1000, 10_000)
    errors: list[Exception] = []
    host.stack.on_algorithm_failure = lambda name, error: errors.append(error)
    for _ in range(50):
        control.on_ack(1000, 10_000, 0, 0, True)
    assert control.name == "reno"
    assert prepared.explain(errors[0]).startswith(f"{path}:12: ZeroDivisionError: ")


def test_a_name_of_ours_is_used_without_a_file() -> None:
    host, _, _ = World(1).pair()
    prepared = prepare(Choice("tahoe"))
    assert prepared is not None
    prepared.use(host.stack)
    assert host.stack.sysctl.tcp_congestion_control == "tahoe"
    assert prepare(None) is None


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (GOOD, "Stedy", "--congestion: mycc.py has no Stedy (did you mean Steady?)"),
        (GOOD, "VALUE", "--congestion: mycc.py: 7 is not a subclass of CongestionControl"),
        (GOOD, "Notes", "--congestion: mycc.py: 'Notes' is not a subclass of CongestionControl"),
        (GOOD, "steady_name", "--congestion: mycc.py: a congestion control named 'reno' exists already"),
        (GOOD, "Demanding", "--congestion: mycc.py: Demanding.__init__() takes 2 positional arguments but 3 were given"),
        ("x = (", "X", "--congestion: mycc.py:1: '(' was never closed"),
        ("\n\nimport nothing_of_that_name", "X", "--congestion: mycc.py:3: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def f():\n    return 1 / 0\nf()", "X", "--congestion: mycc.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit", "X", "--congestion: mycc.py:1: SystemExit: no reason given"),
        ("raise ValueError('two\\nlines')", "X", "--congestion: mycc.py:1: ValueError: two lines"),
        ("\0", "X", "--congestion: mycc.py: source code string cannot contain null bytes"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    """M-38."""
    assert complaint(write(tmp_path, text), name) == message


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none.py", "X") == "--congestion: cannot read none.py: No such file or directory"
    assert complaint(tmp_path / ".", "X").endswith(": Is a directory")
    with pytest.raises(UserError, match=r"there is no .renno.; there is .*cubic, .*reno, .*or FILE\.py:CLASS"):
        prepare(Choice("renno"))


def test_a_path_in_the_file_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('congestion = "sub/mycc.py:Steady"\n')
    config = load(tmp_path / "t.toml")
    assert config.congestion == Choice("Steady", tmp_path / "sub/mycc.py")
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load(tmp_path / "again.toml") == config


def test_serve_and_nc_take_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--congestion", "mycc.py:Steady", "10.0.0.1", "7"]).congestion == Choice("Steady", Path("mycc.py"))
    assert parse(["10.0.0.1", "7"]).congestion is None
    path = write(tmp_path, GOOD)
    assert main(["serve", "--congestion", f"{path}:Steady", "--check-config"]) == 0
    assert f'congestion = "{path}:Steady"' in capsys.readouterr().out
    assert main(["serve", "--congestion", f"{path}x:Steady", "--check-config"]) == 2
    assert capsys.readouterr().err == f"tunstack: --congestion: cannot read {path}x: No such file or directory\n"


def test_the_module_is_known_under_a_name_that_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text(GOOD)
    before = sys.modules.get("json")
    use(f"{path}:Steady")
    assert sys.modules.get("json") is before
