"""The link between `tunstack serve` and its interface (`--link`)."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Mapping

from tunstack.device.linkdevice import LinkDevice
from tunstack.device.linkspec import LinkSpec, parse
from tunstack.device.realclock import RealClock
from tunstack.device.tun import TunDevice

NOTHING = parse("")


class ServeLink:
    """A TUN device behind a link that can be changed; `device` is what the stack is to use."""

    def __init__(self, tun: TunDevice, spec: LinkSpec) -> None:
        self.spec = spec
        self.seed = secrets.randbits(32) if spec.seed is None else spec.seed  # told, so that a run can be repeated
        gc.collect()
        gc.freeze()  # what is there stays: collections to come are short, and the delay exact
        self.device = LinkDevice(tun, *spec.directions(self.seed), RealClock())

    def __str__(self) -> str:
        if not self.spec.text:
            return "link none"
        return f"link {self.spec}" + ("" if self.spec.seed is not None else f" (seed {self.seed})")

    def change(self, spec: LinkSpec | None) -> None:
        """Go on with what another text says; None does nothing to frames."""
        self.spec = spec or NOTHING
        self.spec.apply(self.device.forward, self.device.backward)

    def status(self) -> Mapping[str, object]:
        """Return what `/status` says of it; counts are frames."""
        device = self.device
        return {
            "spec": self.spec.text,
            "up": device.forward.counts(),
            "down": device.backward.counts(),
            "in_flight": device.in_flight,
            "overflowed": device.overflowed,
            "refused": device.refused,
        }
