"""Settings of how a training step is carried out: precision, accumulation, memory, sharding, moving average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossdim.storage_schema.errors import RunError, list_wrong_settings

#: Left to the devices of the run, see ``device_choice``.
AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """Settings of how a step is carried out. They change speed, memory and rounding, never what is minimised.

    Attributes:
        precision: ``auto`` is ``bf16`` on GPUs that compute it, else ``fp32``. ``bf16`` runs networks in bfloat16 by autocast;
            losses stay in float32, weights and gradients too. ``tf32`` multiplies with 10 bits of mantissa, where the GPU can;
            ``fp32`` does not, whatever PyTorch's defaults are. What ``auto`` chose is recorded, and kept by a resume.
        accumulate: parts that a rank's batch is cut into, one after the other; batch norm sees one part at a time.
        recompute: keep only the borders of stages, and compute what lies between again in the backward pass.
        compiled: ``auto`` compiles the networks with ``torch.compile`` on GPUs. Not with ``sharded`` or ``recompute``.
        channels_last: lay convolution weights out with channels last, in which 3D convolutions are faster.
        sync_bn: batch norm over the samples of all ranks.
        sharded: weights, gradients and the optimizer's state are cut over the ranks (FSDP2), for networks too large for one.
        ema: decay of a moving average of the weights, which then is what is kept of the run; None for the weights themselves.
    """

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    accumulate: int = 1
    recompute: bool = False
    compiled: Literal["auto", True, False] = "auto"
    channels_last: bool = True
    sync_bn: bool = False
    sharded: bool = False
    ema: float | None = None

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            precision=self.precision in (AUTO, "fp32", "tf32", "bf16"),
            compiled=self.compiled == AUTO or isinstance(self.compiled, bool),
            accumulate=self.accumulate >= 1,
            ema=self.ema is None or 0 < self.ema < 1,
        ):
            message = "compute takes precision auto, fp32, tf32 or bf16, compiled auto, true or false"
            raise RunError(f"{message}, accumulate of at least 1, ema between 0 and 1; found {found}")
        if self.sharded and self.ema is not None:
            raise RunError("a sharded run keeps no moving average; leave compute.ema or compute.sharded out")
