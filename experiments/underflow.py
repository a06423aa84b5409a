"""A run's underflow: the means of what ``ScaleReport`` wrote down."""

import collections
import csv
import dataclasses
import math
import os


@dataclasses.dataclass(frozen=True)
class Underflow:
    """Underflow rates of a run, as fractions of the elements of the layers' data gradients.

    Attributes:
        mean (float): Over layers and measured iterations.
        mean_unscaled (float): The same, of the same gradients with every scale 1.
        worst_layer (float): Of the layer with the highest mean over the iterations.
    """

    mean: float = math.nan
    mean_unscaled: float = math.nan
    worst_layer: float = math.nan


def read(path):
    """Averages the rates in a ``scales.csv``.

    Args:
        path (str): The file.

    Returns:
        Underflow: The means; NaN if nothing was measured.
    """
    if not os.path.exists(path):
        return Underflow()
    rates = collections.defaultdict(list)
    unscaled = []
    with open(path, newline='') as file:
        for row in csv.DictReader(file):
            rates[row['layer'], row['call']].append(float(row['underflow']))
            unscaled.append(float(row['underflow_unscaled']))
    return Underflow(
        mean=_mean([rate for layer in rates.values() for rate in layer]),
        mean_unscaled=_mean(unscaled),
        worst_layer=max(map(_mean, rates.values()), default=math.nan),
    )


def _mean(values):
    return math.fsum(values) / len(values) if values else math.nan
