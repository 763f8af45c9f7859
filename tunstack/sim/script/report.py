"""What a script's failure looks like: the lines so far with their times, then what was expected and what came."""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT = 14  # steps shown before the failure


class ScriptFailure(AssertionError):
    """The stack did something else than the script says. `line` is the number of the script's line, 0 at its end."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, as the script has it. `at` is µs from the script's start."""

    at: int
    line: int
    text: str


class Report:
    """Keeps the steps that went well, and makes the failure's text."""

    def __init__(self, title: str) -> None:
        self._title = title  # which run of the script
        self._steps: list[Step] = []

    def add(self, at: int, line: int, text: str) -> None:
        self._steps.append(Step(at, line, text))

    def failure(
        self, at: int, line: int, reason: str, expected: str | None, actual: str | None, waiting: list[tuple[int, str]]
    ) -> ScriptFailure:
        """Return the error: `reason` in a line, the ladder, expected over actual, and what else was sent."""
        where = f"line {line}" if line else "the end of the script"
        out = [f"{where}, {format_time(at)} s: {reason}" + (f" ({self._title})" if self._title else "")]
        skipped = len(self._steps) - CONTEXT
        if skipped > 0:
            out.append(f"        ... {skipped} steps before")
        out += [f"  {step.line:4}  {format_time(step.at):>12}  {step.text}" for step in self._steps[-CONTEXT:]]
        if expected is not None:
            out.append(f"- {line:4}  {'expected':>12}  {expected}")
        if actual is not None:
            out.append(f"+       {format_time(at):>12}  {actual}")
        out += [f"+       {format_time(when):>12}  {text}" for when, text in waiting]
        return ScriptFailure("\n".join(out), line)


def format_time(at: int) -> str:
    """Return µs as seconds with six places."""
    return f"{at / 1e6:.6f}"
