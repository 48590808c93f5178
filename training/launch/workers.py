"""How a run is spread over workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossdim.foundation.cluster import starts_here
from crossdim.training.config.device_choice import Device
from crossdim.training.launch.devices import find_devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The workers of a run: ``least`` to ``most`` of Ray Train; 0 trains in this process, without Ray.

    Where the two differ the run is elastic: Ray starts with what there is, restarts the workers when machines come or go,
    and each start goes on from the newest checkpoint with the same global batch, order and schedule. Every
    ``resize_every_s`` it looks whether there are more.
    """

    least: int
    most: int
    use_gpu: bool
    address: str | None
    quiet: bool
    resize_every_s: float = 60.0

    @property
    def span(self) -> tuple[int, int]:
        """The fewest and the most processes that train."""
        return max(1, self.least), max(1, self.most)

    @property
    def joins(self) -> bool:
        """Whether workers run on a cluster that is there already."""
        return self.most > 0 and not starts_here(self.address)

    def find_devices(self, *, needed: bool) -> Sequence[Device]:
        """Find the devices that workers may use, see :func:`.devices.find_devices`."""
        return find_devices(self.address, use_gpu=self.use_gpu, joins=self.joins, needed=needed)
