"""Training curves as TensorBoard reads them: event files, made by TensorFlow."""

from collections.abc import Sequence
from pathlib import Path

from stackcls.engines.graphs import import_tensorflow
from stackcls.report.tuned import Epoch

PARTS = {
    "train": {"epoch_loss": "loss", "epoch_accuracy": "accuracy", "epoch_learning_rate": "rate"},
    "validation": {"epoch_loss": "validation_loss", "epoch_accuracy": "validation_accuracy"},
}


class EventLog:
    """Writes a run's epochs, by the names that Keras's own callback uses; those of an interrupted run again.

    Parameters
    ----------
    folder : Path
        Of which event files of an earlier start are replaced: the last epoch in them may not have been kept.
    history : sequence of Epoch
        What was done before.
    """

    def __init__(self, folder: Path, history: Sequence[Epoch]) -> None:
        tensorflow = import_tensorflow()
        self._constant, self._write = tensorflow.constant, tensorflow.summary.write
        # As `tf.summary.scalar`, which asks for TensorBoard itself.
        self._scalars = tensorflow.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"}, data_class=1)
        self._writers = {}
        for part in PARTS:
            for old in (folder / part).glob("events.out.tfevents.*"):
                old.unlink()
            self._writers[part] = tensorflow.summary.create_file_writer(str(folder / part))
        for epoch in history:
            self.add(epoch)

    def add(self, epoch: Epoch) -> None:
        """Write one epoch, for a TensorBoard that is looking on."""
        for part, tags in PARTS.items():
            with self._writers[part].as_default(step=epoch.epoch):
                for tag, name in tags.items():
                    self._write(tag, self._constant(getattr(epoch, name), "float32"), metadata=self._scalars)
            self._writers[part].flush()

    def close(self) -> None:
        """End the files."""
        for writer in self._writers.values():
            writer.close()
