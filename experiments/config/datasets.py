"""The data sets; each says which task it sets."""

from typing import Annotated, ClassVar, Literal

from experiments.config.section import Section

from pydantic import Field


class Digits(Section):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, in 10 classes; part of the package."""

    task: ClassVar[str] = 'classification'

    name: Literal['digits']
    test_size: Annotated[int, Field(ge=10, le=1787)] = 360
    """How many are kept for the test set; the split is stratified and always the same."""


Dataset = Digits
