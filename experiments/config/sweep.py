"""Several runs of one config."""

from typing import Annotated

from experiments.config.scaling import Scaling, label
from experiments.config.section import Section, Seed

import pydantic
from pydantic import Field


class Sweep(Section):
    """What ``sweep`` runs: every way of scaling with every seed."""

    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    scaling: Annotated[tuple[Scaling, ...], Field(strict=False, min_length=1)]

    @pydantic.field_validator('seeds')
    @classmethod
    def _no_seed_twice(cls, seeds):
        return _all_different(seeds, seeds)

    @pydantic.field_validator('scaling')
    @classmethod
    def _no_scaling_twice(cls, scaling):
        return _all_different(scaling, [label(item) for item in scaling])


def _all_different(items, names):
    for index, name in enumerate(names):
        if name in names[:index]:
            first = names.index(name)
            raise ValueError(f'every item once (items {first} and {index} are both {name})')
    return items
