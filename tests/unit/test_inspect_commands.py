"""`tunstack ss`, `netstat` and `nstat` called wrongly (M-60, M-61); what they show is tested in interop/test_inspect.py."""

from __future__ import annotations

import pytest

from tunstack.cli import main


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ss -tan bogus", "tunstack: ss: there is no condition 'bogus' in a filter"),
        ("ss -tan state bogus", "tunstack: ss: wrong state name: bogus"),
        ("ss -E", "tunstack: ss: unrecognized arguments: -E"),
        ("ss -F /nowhere", "tunstack: ss: the filter /nowhere cannot be read: No such file"),
        ("ss --control /nowhere", "tunstack: cannot reach /nowhere"),
        ("netstat -r", "tunstack: netstat: unrecognized arguments: -r"),
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
