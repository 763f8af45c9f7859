"""`tunstack ss`, `netstat` and `nstat` called wrongly (M-60, M-61); what they show is tested in interop/test_inspect.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunstack.cli import main


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ss -tan bogus", "tunstack: ss: there is no condition 'bogus' in a filter"),
        ("ss -tan state bogus", "tunstack: ss: wrong state name: bogus"),
        ("ss -E", "tunstack: ss: unrecognized arguments: -E"),
        ("ss -F /nowhere", "tunstack: ss: the filter /nowhere cannot be read: No such file"),
        ("ss -tA foo", "tunstack: ss: -A: there is no kind of sockets 'foo'; there is all, "),
        ("ss -f ip", "tunstack: ss: -f: there is no family 'ip'; there is inet, inet6, "),
        ("ss -tanE", "tunstack: ss: 'E' behind -n/--numeric is no option, and no value is wanted there"),
        ("ss --control /nowhere", "tunstack: cannot reach /nowhere"),
        ("netstat -r", "tunstack: netstat: unrecognized arguments: -r"),
        ("netstat -nr", "tunstack: netstat: 'r' behind -n/--numeric is no option, and no value is wanted there"),
        ("netstat --control /nowhere", "tunstack: cannot reach /nowhere"),
        ("nstat -x", "tunstack: nstat: unrecognized arguments: -x"),
        ("nstat --control /nowhere", "tunstack: cannot reach /nowhere"),
        ("serve --metrics 70000", "tunstack: serve: argument --metrics: '70000' is not of the form [HOST:]PORT"),
        ("serve --metrics localhost:9", "tunstack: serve: argument --metrics: 'localhost:9' is not of the form [HOST:]PORT"),
    ],
)
def test_mistakes_are_one_line_and_status_2(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """M-60: never a traceback."""
    assert main(command.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.startswith(message)


@pytest.mark.parametrize("command", ["ss", "netstat", "nstat"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """M-60."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"tunstack {command}" in capsys.readouterr().out.partition("examples:")[2]


@pytest.mark.parametrize("command", ["ss", "netstat", "nstat", "sysctl"])
def test_version_is_asked_for_as_of_the_kernels_tools(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """M-60, M-62."""
    with pytest.raises(SystemExit) as ended:
        main([command, "-V"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split()[0] == "tunstack"


@pytest.mark.parametrize("command", ["ss", "netstat", "nstat", "sysctl"])
def test_no_command_waits_for_what_the_daemon_needs(command: str) -> None:
    """M-60: a command is called in loops, and takes little more than Python's own start."""
    code = (
        f"import sys, tunstack.cli\nfrom tunstack.cli import {command}\n"
        f"tunstack.cli.main(['{command}', '--control', '/nowhere', *sys.argv[1:]])\nprint(sorted(sys.modules))"
    )
    arguments = ["-a"] if command == "sysctl" else []
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "cannot reach /nowhere" in done.stderr
    for name in ("asyncio", "tunstack.engine", "tunstack.daemon.settings", "importlib.metadata"):
        assert f"'{name}'" not in done.stdout
