"""A host of one stack behind packetdrill's calls: sockets, blocking calls and readiness, in virtual time.

native/packetdrill embeds it into the shared library that packetdrill loads.
"""

from tunstack.sim.packetdrill.calls import Calls
from tunstack.sim.packetdrill.flags import Flags, parse_flags

__all__ = ["Calls", "Flags", "parse_flags"]
