"""Draws the guide's pictures from the quickstart's runs; `make pictures` calls it."""

import math
import pathlib
import sys

from chainerlp.extensions import files, pictures

import numpy
from matplotlib.figure import Figure

WAYS = {'none': 'float16, unscaled', 'per_sample': 'float16, PerSample'}
THRESHOLD = 1e-3  # T of the policies' default


def underflow(results, seed):
    """Returns a figure with a map of underflow, layers by iterations, for each of two ways.

    Args:
        results (pathlib.Path): The folder of the quickstart's runs.
        seed (int): Of which runs.
    """
    figure = Figure(figsize=(9, 3.4), layout='constrained', dpi=120)
    panels = figure.subplots(1, 2, sharey=True)
    colours, norm = pictures.underflow_colours(THRESHOLD, math.log10(THRESHOLD) - 2)
    for axes, (way, title) in zip(panels, WAYS.items()):
        rows = files.read(results / f'{way}-seed={seed}' / 'scales.csv')
        uses, iterations, grid = pictures.grid_of(rows, 'underflow')
        rates = numpy.log10(numpy.maximum(grid, 10 ** (norm.vmin - 1)))
        places = numpy.arange(len(uses) + 1) + 1.5  # the first layer passes nothing down
        mesh = axes.pcolormesh(
            pictures.edges_of(iterations), places, rates, cmap=colours, norm=norm
        )
        axes.set(title=f'{title}: {grid.mean():.2%} lost', xlabel='iteration')
        axes.set_yticks(range(2, len(uses) + 2, 2))
    panels[0].invert_yaxis()
    panels[0].set_ylabel('layer, from input to loss')
    bar = figure.colorbar(mesh, ax=panels, extend='min', fraction=0.05)
    bar.set_label('share of the gradient\nrounded to zero (white: less)')
    bar.ax.axhline(math.log10(THRESHOLD), color='black', linewidth=2)
    ticks = {-5: '0.001%', -4: '0.01%', -3: 'T = 0.1%', -2: '1%', -1: '10%', 0: '100%'}
    bar.set_ticks(list(ticks), labels=ticks.values())
    return figure


if __name__ == '__main__':
    results, seed = sys.argv[1:]
    folder = pathlib.Path(__file__).with_name('pictures')
    underflow(pathlib.Path(results), int(seed)).savefig(folder / 'underflow.png')
    rows = files.read(pathlib.Path(results, f'per_sample-seed={seed}', 'scales.csv'))
    pictures.scales(rows).savefig(folder / 'scales.png')
    pictures.layers(rows, THRESHOLD).savefig(folder / 'layers.png')
