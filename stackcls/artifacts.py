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
    def holdout(self) -> Path:
        """Prediction of each image that was held out."""
        return self.folder / "holdout_predictions.csv"

    @property
    def explanations(self) -> Path:
        """Folder of the pictures that `explain` draws."""
        return self.folder / "explain"
