"""What a hot path is: a scenario that runs, and which of the stages that it meters stand for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meter import Meter, Stage

WARMUP = 1000  # units before those that are measured: windows are open by then, and caches filled


@dataclass(frozen=True, slots=True)
class Scenario:
    """`run(meter, length)` meters so many units after a warm-up, and returns how many connections those were, if that is the unit."""

    name: str
    unit: str  # what a figure is for each of
    run: Callable[[Meter, int], int]
    paths: Mapping[str, tuple[str, ...]]  # label: the stages that make it up
    stretch: int = 1  # how many times longer it runs than others, to mean something

    def figures(self, meter: Meter, length: int) -> dict[str, float]:
        """Run it, and return the cost of a unit by label."""
        connections = self.run(meter, length * self.stretch)
        figures = {}
        for label, names in self.paths.items():
            stages = [meter.stages.get(name, Stage()) for name in names]
            figures[label] = sum(stage.cost for stage in stages) / max(connections or sum(stage.units for stage in stages), 1)
        return figures
