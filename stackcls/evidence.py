"""What in the images that a page shows made the stack decide: maps for a few, within a time, at no cost to the page."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stackcls import album, images, modelfile, safemodel, sources
from stackcls.artifacts import Artifacts
from stackcls.errors import ModelError, SourceMissing, StackclsError, UnreadableImage
from stackcls.explaining import Explainer, Method
from stackcls.extraction import ImageInput
from stackcls.listener import Listener
from stackcls.model import StackModel
from stackcls.printable import counted
from stackcls.report import overlays
from stackcls.report.content import Evidence, Predicted
from stackcls.report.results import Report
from stackcls.settings import Limits, Settings
from stackcls.sources import Source

MOST_SECONDS = 600.0  # after which no further image is begun

Found = dict[str, tuple[Evidence, ...]]


@dataclass(frozen=True)
class Wanted:
    """Images to explain: mistakes on images that the model has learned from since, and on images that it never did."""

    mistakes: Sequence[Predicted]
    held_out: Sequence[Predicted]

    def __len__(self) -> int:
        return len(self.mistakes) + len(self.held_out)

    def unchanged(self, model: StackModel, source: Source, limits: Limits) -> list[Predicted]:
        """Those whose content is what it was, as far as the model knows; what cannot be read says so later."""
        every = [*self.mistakes, *self.held_out]
        learned = [True] * len(self.mistakes) + [False] * len(self.held_out)
        kept = []
        for item, expected in zip(every, learned, strict=True):
            path = item.photo.path
            with suppress(UnreadableImage):
                if model.seen([images.hash_file(source.content(path), path, limits)])[0] != expected:
                    continue
            kept.append(item)
        return kept


@dataclass(frozen=True)
class Search:
    """How to look for what speaks for the classes that images were taken for, and for their own.

    Attributes
    ----------
    count : int
        So many of the mistakes of cross-validation, and so many of the hold-out.
    method : {'occlusion', 'gradcam'}
        See `explaining.Explainer`.
    listener : Listener
        Is told what could not be explained, and why; the page does without.
    """

    count: int
    method: Method
    listener: Listener

    def look(
        self,
        mistakes: Sequence[Predicted],
        held_out: Sequence[Predicted],
        report: Report,
        settings: Settings,
        files: Artifacts,
    ) -> Mapping[str, Sequence[Evidence]]:
        """Explain the first of each by the final model, which is among the files.

        Returns
        -------
        mapping of str to sequence of Evidence
            By path: for the predicted class, then for the given one. What cannot be explained is not there.
        """
        wanted = Wanted(mistakes[: self.count], held_out[: self.count])
        found: Found = {}
        try:
            if len(wanted):
                self._explain(wanted, found, report, settings, files)
            elif self.count:
                self.listener.warn("--explain: no mistakes are listed beside this report, so nothing is explained")
        except StackclsError as error:
            self.listener.warn(
                f"--explain: {error}; the page has maps of {len(found)} of {counted(len(wanted), 'image')}"
            )
        return found

    def _explain(self, asked: Wanted, found: Found, report: Report, settings: Settings, files: Artifacts) -> None:
        source = sources.reachable(settings.images, settings.features.limits)
        if source is None:
            raise SourceMissing(f"the images are not at {settings.images}; say where they are (--set images=...)")
        model = _of_the_run(report, files)
        wanted = asked.unchanged(model, source, settings.features.limits)
        if len(wanted) < len(asked):
            self.listener.warn(
                f"--explain: {len(asked) - len(wanted)} of {counted(len(asked), 'image')} are left out: these paths in "
                f"{settings.images} held others when the model was fitted; put those back, or say where they are "
                "(--set images=...)"
            )
        if not wanted:
            return
        model.run_as(settings.features, self.listener)
        explainer = Explainer(model, self.method, settings.features.limits, self.listener)
        end, unread = time.monotonic() + MOST_SECONDS, 0
        answers = explainer.compare(
            [ImageInput(item.photo.path, source.content(item.photo.path)) for item in wanted],
            [(item.predicted, item.given) for item in wanted],
        )
        with self.listener.track("explain", len(wanted), "image") as advance:
            for number, (item, answer) in enumerate(zip(wanted, answers, strict=True), 1):
                advance(1)
                if isinstance(answer, UnreadableImage):
                    unread += 1
                else:
                    drawn = [overlays.laid_over(answer.picture, heat) for heat in answer.maps]
                    small = [album.embedded(overlays.webp(picture, album.SIDE)) for picture in drawn]
                    named = zip((item.predicted, item.given), answer.shares, small, strict=True)
                    found[item.photo.path] = tuple(Evidence(*one) for one in named)
                if number < len(wanted) and time.monotonic() > end:
                    self.listener.warn(
                        f"--explain: stopped after {number} of {counted(len(wanted), 'image')}, since "
                        f"{MOST_SECONDS:g} s are over; --method gradcam is faster, where it does"
                    )
                    break
        if unread:
            self.listener.warn(f"--explain: {unread} of {counted(len(wanted), 'image')} could not be read")


def _of_the_run(report: Report, files: Artifacts) -> StackModel:
    """The model that was written with a report: never the pickled one, since a report may come from anyone."""
    modelfile.check_companion(files.safe_model)
    described, model = safemodel.open_described(files.safe_model)
    scores = {name: score.mean for name, score in report.scores.items()}
    if (list(described.classes), described.origin.scores) != (report.classes, scores):
        raise ModelError(f"{files.safe_model}: is not of the report's run; run `stackcls fit` again")
    return model
