"""What comes out of a run, and the file that lists it for all runs of a sweep."""

import csv
import dataclasses
import io
import math
from typing import Optional

from experiments.config import Config
from experiments.underflow import Underflow


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended. What a run that failed has not come to is NaN.

    Attributes:
        config (experiments.config.Config): What was run.
        seconds (float): Time of the training, evaluations and measurements included.
        accuracy (float): On the test set, at the end.
        loss (float): On the test set, at the end.
        underflow (experiments.underflow.Underflow): What rounding lost.
        skipped (int): Updates skipped because of gradients that were not finite.
        error (str): Why it failed, or ``None``.
    """

    config: Config
    seconds: float
    accuracy: float = math.nan
    loss: float = math.nan
    underflow: Underflow = Underflow()
    skipped: float = math.nan
    error: Optional[str] = None

    @property
    def name(self):
        """str: The run's name."""
        return self.config.run_name

    @property
    def diverged(self):
        """bool: Whether it went through, but to a loss that is not finite."""
        return self.error is None and not math.isfinite(self.loss)

    def row(self):
        """Returns the run's row in the summary, a dict by column; rates are fractions."""
        return {
            'name': self.name,
            'dtype': self.config.scaling.dtype,
            'method': self.config.scaling.method,
            'seed': self.config.seed,
            'accuracy': f'{self.accuracy:.6g}',
            'loss': f'{self.loss:.6g}',
            'underflow': f'{self.underflow.mean:.6g}',
            'underflow_unscaled': f'{self.underflow.mean_unscaled:.6g}',
            'skipped': self.skipped,
            'seconds': f'{self.seconds:.2f}',
        }


def write(path, results):
    """Writes the summary: one row a run. The file is there as a whole or not at all.

    Args:
        path (str): The csv file.
        results (list of Result): The runs so far, at least one.
    """
    rows = [result.row() for result in results]
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, file.getvalue())
