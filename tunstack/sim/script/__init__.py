"""Scripts of packets and socket calls, in packetdrill's notation, against one stack in virtual time."""

from tunstack.sim.script.parser import ScriptSyntaxError, parse
from tunstack.sim.script.report import ScriptFailure
from tunstack.sim.script.runner import Runner, run

__all__ = ["Runner", "ScriptFailure", "ScriptSyntaxError", "parse", "run"]
