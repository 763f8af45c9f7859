"""Virtual time: worlds of stacks, an event loop that jumps (run), whole transfers, flows that share a bottleneck (measure).

Scripts of segments are in sim.script.
"""

from tunstack.device.impairment import Impairment
from tunstack.sim.loop import VirtualLoop, run
from tunstack.sim.measure import FlowPlan, Result, measure
from tunstack.sim.transfer import Outcome, transfer
from tunstack.sim.world import Host, World

__all__ = ["FlowPlan", "Host", "Impairment", "Outcome", "Result", "VirtualLoop", "World", "measure", "run", "transfer"]
