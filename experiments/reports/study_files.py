"""The files of a study: what each row of them says, writing and reading them."""

import csv
import io
import os
import typing

from chainerlp.extensions.files import write_text


class StudyRun(typing.NamedTuple):
    """One run: ``runs.csv``.

    Attributes:
        experiment (str): The task.
        way (str): How gradients were scaled.
        format (str): What they were rounded to.
        scale (float): The constant, 1 if there was none; NaN of other ways.
        seed (int): The seed.
        value (float): The task's metric on the test set, at the end.
        loss (float): The loss there.
        error (float): The gradient error: median over parameters, averaged over iterations.
        underflow (float): Mean underflow over layers and iterations.
        unscaled (float): That of the same gradients with every scale 1.
        late_worst (float): That of the worst layer in the last quarter of the training.
        over (float): The share of layers and iterations where it was over T.
        skipped (int): Updates that were skipped.
    """

    experiment: str
    way: str
    format: str
    scale: float
    seed: int
    value: float
    loss: float
    error: float
    underflow: float
    unscaled: float
    late_worst: float
    over: float
    skipped: int


class ComparedWay(typing.NamedTuple):
    """The gradient error of a way of scaling on the weights of a float32 run: ``comparison.csv``.

    Attributes:
        experiment (str): The task.
        format (str): What gradients were rounded to.
        way (str): How they were scaled.
        scale (float): The constant; NaN of other ways.
        seed (int): The seed.
        error (float): The median over parameters, averaged over iterations.
    """

    experiment: str
    format: str
    way: str
    scale: float
    seed: int
    error: float


class PredictionRatio(typing.NamedTuple):
    """Predicted over measured underflow of unscaled runs: ``predictions.csv``.

    Where next to nothing was measured there is no ratio: layers for which a prediction is merely
    too high are not among them.

    Attributes:
        experiment (str): The task.
        format (str): What gradients were rounded to.
        criterion (str): Whose prediction: ``gaussian`` (the paper's) or ``per_sample``.
        cells (int): How many layers and iterations.
        median (float): Of the ratio of predicted to measured.
        lowest (float): Its lowest tenth begins above.
        highest (float): Its highest tenth begins here.
    """

    experiment: str
    format: str
    criterion: str
    cells: int
    median: float
    lowest: float
    highest: float


class Wish(typing.NamedTuple):
    """The total scale that a layer of a float32 run would want at its end: ``wanted.csv``.

    Attributes:
        experiment (str): The task.
        format (str): For which format.
        layer (str): Path of the layer.
        call (int): Which use of it in the pass, from 0.
        wanted (float): The smallest power of two at which at most T of the gradient underflows, in
            all late iterations.
        allowed (float): The largest at which nothing overflows in them.
    """

    experiment: str
    format: str
    layer: str
    call: int
    wanted: float
    allowed: float


FILES = {
    StudyRun: 'runs.csv',
    ComparedWay: 'comparison.csv',
    PredictionRatio: 'predictions.csv',
    Wish: 'wanted.csv',
}


def write(folder, kind, rows):
    """Writes rows of a kind to its file in a folder, each number in as many digits as it has."""
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows([kind._fields, *rows])
    write_text(os.path.join(folder, FILES[kind]), text.getvalue())


def read(folder, kind):
    """Returns the rows of a kind in a folder."""
    types = typing.get_type_hints(kind).values()
    with open(os.path.join(folder, FILES[kind]), encoding='utf-8', newline='') as file:
        _, *lines = csv.reader(file)
    return [kind(*(of(cell) for of, cell in zip(types, line))) for line in lines]
