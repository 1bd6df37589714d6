"""What a model keeps of each of its backbones."""

from dataclasses import dataclass

from stackcls.backbones import Backbone, Identity
from stackcls.bases import Basis


@dataclass(frozen=True)
class ModelBackbone:
    """One backbone of a model, and where its weights were.

    Attributes
    ----------
    backbone : Backbone
    identity : Identity
    width : int
    hints : tuple of str
        Where the weights lay at fitting: relative to the model's folder, then absolute.
    basis : Basis or None
        What was fitted on a sample of the images before the features could be made (8-bit ranges, components).
    """

    backbone: Backbone
    identity: Identity
    width: int
    hints: tuple[str, ...]
    basis: Basis | None = None
