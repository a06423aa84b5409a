"""What the sections of a config are made of.

Nothing is converted silently: a string is no number, ``true`` is no 1, and an unknown key is an
error. Everything is frozen; a config is a value.
"""

from typing import Annotated, Optional

import pydantic
from pydantic import Field

# A folder is named after it.
Name = Annotated[str, Field(pattern=r'^[A-Za-z0-9][A-Za-z0-9._-]*$', max_length=100)]
Count = Annotated[int, Field(ge=1)]
# Of what takes memory. No machine has it for more; in products of several, for less.
Size = Annotated[int, Field(ge=1, le=2**16)]
Depth = Annotated[int, Field(ge=1, le=2**11)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

UNITS = ('epochs', 'iterations')
"""What lengths are given in; see :class:`InOneUnit`."""


class Section(pydantic.BaseModel):
    """Base class of everything in a config."""

    model_config = pydantic.ConfigDict(
        extra='forbid', frozen=True, strict=True, use_attribute_docstrings=True
    )


class InOneUnit(Section):
    """Base class of what has the keys ``epochs`` and ``iterations``, and takes exactly one."""

    @pydantic.model_validator(mode='after')
    def _one_unit(self):
        if sum(getattr(self, unit) is not None for unit in UNITS) != 1:
            raise ValueError('either epochs or iterations, and not both')
        return self


class Interval(InOneUnit):
    """From one time to the next: so many epochs, or so many iterations."""

    epochs: Optional[Count] = None
    iterations: Optional[Count] = None
