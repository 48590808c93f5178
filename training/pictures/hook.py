"""PictureHook: at chosen steps, has pictures of a few samples drawn by a thread of rank 0.

Training waits only while the weights are copied to host memory. The thread computes on the CPU in float32, with a network
and generators of its own, so that training computes the same with and without pictures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from torch import Tensor

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.pictures.sample_pictures import SamplePictures
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.boards import write_picture_board
from crossdim.training.run_dir.layout import step_pictures_path
from crossdim.training.run_dir.picture_log import list_picture_steps, remove_pictures_after, write_galleries

_LOG = logging.getLogger(__name__)


class PictureHook:
    """The hook of rank 0 that draws pictures. What cannot be drawn is a warning; no run ends because of its pictures.

    Args:
        run: folder of the run.
        config: of the run.
        datasets: of the run.
        state: of the training.
        steps: numbers of steps done after which pictures are drawn; none for no pictures.
    """

    def __init__(
        self, run: Bucket, config: Pretraining, datasets: Sequence[PublishedDataset], state: TrainState, steps: Sequence[int]
    ) -> None:
        self._run, self._state, self._steps = run, state, frozenset(steps)
        self._samples = SamplePictures(config, datasets)
        # Weights of a sharded run lie on all ranks, and gathering them would hold all of them: only its views are shown.
        self._network = config.build_method(config.seed) if steps and not state.sharded else None
        self._writer = BackgroundWriter()

    def start(self, done: int) -> None:
        """Remove pictures of steps that are done again, and draw those of this step if they are due and missing.

        Args:
            done: steps done before this start.
        """
        remove_pictures_after(self._run, done)
        if done in self._steps and done not in list_picture_steps(self._run):
            self._draw(done)

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Have pictures drawn if they are due.

        Args:
            record: of the step.
            request: not used.
        """
        self._writer.check()
        if record.step + 1 in self._steps:
            self._draw(record.step + 1)

    def close(self) -> None:
        """Wait until all pictures are written, and end the thread."""
        try:
            self._writer.finish()
        finally:
            self._writer.close()

    def _draw(self, done: int) -> None:
        self._writer.finish()  # so that one copy of the weights is held at a time
        weights = _copy_weights(self._state) if self._network else {}
        self._writer.write(self._write, done, weights)

    def _write(self, done: int, weights: dict[str, Tensor]) -> None:
        """Draw and write the pictures of a step; called in the thread."""
        began = time.perf_counter()
        try:
            if self._network:
                self._network.load_state_dict(weights)
            galleries, left_out = self._samples.draw(done, self._network)
            size = write_galleries(self._run, step_pictures_path(done), galleries)
            write_picture_board(self._run, done, galleries)
        except (CrossdimError, RuntimeError, MemoryError) as error:  # of the store, of PyTorch: training does not need them
            _LOG.warning("step %d: its pictures are missing, and the run goes on: %s", done, error)
            return
        if left_out:
            _LOG.warning("step %d: the pictures of %d of its samples are left out: the others are large", done, left_out)
        if not any(name == "restored" for gallery in galleries for name, _ in gallery.rows):
            self._network = None  # this method restores nothing: no further copies
        _LOG.debug("pictures of step %d: %d bytes, drawn in %.2f s", done, size, time.perf_counter() - began)


def _copy_weights(state: TrainState) -> dict[str, Tensor]:
    """Copy the weights that the run is evaluated with to host memory."""
    kept = state.average.module if state.average else state.method
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in kept.state_dict().items()}
