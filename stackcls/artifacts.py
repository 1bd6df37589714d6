"""Names of the files in `artifacts/`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Artifacts:
    """Names of the files that the stages write, in one folder."""

    folder: Path

    @property
    def features(self) -> Path:
        """Feature matrices, labels and hashes of all images."""
        return self.folder / "features.h5"

    @property
    def blocks(self) -> Path:
        """Finished blocks of a run of `features` that has not ended yet."""
        return self.folder / ".features-blocks"

    @property
    def model(self) -> Path:
        """The fitted stack, for `joblib.load`; opening it can run code."""
        return self.folder / "model.joblib"

    @property
    def safe_model(self) -> Path:
        """The same as plain arrays and JSON; opening it executes nothing."""
        return self.folder / "model.safetensors"

    @property
    def model_card(self) -> Path:
        """What is checked before `model.joblib` is loaded."""
        return self.folder / "model.json"

    @property
    def report(self) -> Path:
        """All scores, for programs."""
        return self.folder / "report.json"

    @property
    def report_text(self) -> Path:
        """The scores, for people."""
        return self.folder / "report.md"

    @property
    def confusion(self) -> Path:
        """Picture of the confusion matrix."""
        return self.folder / "confusion.png"

    @property
    def predictions(self) -> Path:
        """Out-of-fold prediction of each image."""
        return self.folder / "cv_predictions.csv"

    @property
    def probabilities(self) -> Path:
        """The stack's out-of-fold probabilities, float32, shape (n, classes): rows as in `predictions`."""
        return self.folder / "cv_probabilities.npy"

    @property
    def page(self) -> Path:
        """The report as one page for a browser."""
        return self.folder / "report.html"

    @property
    def suspects(self) -> Path:
        """Images whose given label the out-of-fold stack finds improbable, the most suspicious first."""
        return self.folder / "label_suspects.csv"

    @property
    def duplicates(self) -> Path:
        """Groups of images that are the same, or nearly."""
        return self.folder / "duplicates.csv"

    @property
    def map_picture(self) -> Path:
        """The images in a plane, similar ones together."""
        return self.folder / "map.png"

    @property
    def map_drawing(self) -> Path:
        """The same, to be scaled."""
        return self.folder / "map.svg"

    @property
    def map_page(self) -> Path:
        """The same as a page for a browser, with the images."""
        return self.folder / "map.html"

    @property
    def map_table(self) -> Path:
        """The same as coordinates."""
        return self.folder / "map.csv"

    @property
    def holdout(self) -> Path:
        """Prediction of each image that was held out."""
        return self.folder / "holdout_predictions.csv"

    def finetuned(self, name: str) -> "Finetuned":
        """Names of the files of one fine-tuned backbone."""
        return Finetuned(self.folder / "finetune" / name)

    def comparison(self, name: str) -> Path:
        """Training curves of several runs of one backbone, in one picture."""
        return self.folder / "finetune" / f"{name}-comparison.png"

    @property
    def explanations(self) -> Path:
        """Folder of the pictures that `explain` draws."""
        return self.folder / "explain"


@dataclass(frozen=True)
class Finetuned:
    """Names of the files that `finetune` writes, in a folder for each run."""

    folder: Path

    @property
    def model(self) -> Path:
        """The network without its head, as an entry of `backbones` takes it."""
        return self.folder / "model.keras"

    @property
    def history(self) -> Path:
        """Loss and accuracy of each epoch."""
        return self.folder / "history.csv"

    @property
    def logs(self) -> Path:
        """The same for TensorBoard."""
        return self.folder / "tensorboard"

    @property
    def curves(self) -> Path:
        """The same as a picture."""
        return self.folder / "curves.png"

    @property
    def report(self) -> Path:
        """All that is known of the run, for programs."""
        return self.folder / "report.json"

    @property
    def checkpoint(self) -> Path:
        """What a run that has not ended goes on from."""
        return self.folder / "checkpoint.npz"
