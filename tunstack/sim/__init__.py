"""Virtual time: worlds of stacks, an event loop that jumps (run), whole transfers; scripts of segments are in sim.script."""

from tunstack.sim.loop import VirtualLoop, run
from tunstack.sim.transfer import Outcome, transfer
from tunstack.sim.world import Host, World

__all__ = ["Host", "Outcome", "VirtualLoop", "World", "run", "transfer"]
