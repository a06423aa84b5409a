"""The models; each says for which task it is."""

from typing import Annotated, ClassVar, Literal

from experiments.config.section import Count, Section

from pydantic import Field


class MLP(Section):
    """A multilayer perceptron: linear layers with ReLU in between."""

    task: ClassVar[str] = 'classification'

    name: Literal['mlp']
    layers: Annotated[int, Field(ge=2)]
    """Linear layers, the last one included."""
    units: Count
    """Units of every layer but the last."""


Model = MLP
