"""The curves of runs, overlaid: what Chainer's logs hold of losses and metrics."""

from experiments import tasks

from matplotlib.figure import Figure

# Okabe and Ito's palette; runs beyond it differ by the line's style.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_STYLES = ('-', '--', ':', '-.')
_PANELS = (
    ('main/loss', 'training loss', 'log'),
    ('validation/main/loss', 'test loss', 'log'),
    *((key, title, 'linear') for key, title in tasks.titles().items()),
)


def draw(runs):
    """Draws a panel for each key that some log has, a line for each run.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): The runs.

    Returns:
        ~matplotlib.figure.Figure: The picture, or ``None`` if no log has anything to draw.
    """
    panels = [panel for panel in _PANELS if any(panel[0] in e for run in runs for e in run.log)]
    if not panels:
        return None
    figure = Figure(figsize=(5 * len(panels), 4.2), layout='constrained', dpi=120)
    for column, (key, label, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), column + 1)
        for index, run in enumerate(runs):
            points = [(entry['iteration'], entry[key]) for entry in run.log if key in entry]
            if points:
                axes.plot(
                    *zip(*points),
                    color=_COLOURS[index % len(_COLOURS)],
                    linestyle=_STYLES[index // len(_COLOURS) % len(_STYLES)],
                    marker='.' if len(points) < 30 else None,
                    label=run.name,
                )
        axes.set(xlabel='iteration', ylabel=label, yscale=scale)
        axes.grid(alpha=0.3)
    shown = {}
    for axes in figure.axes:  # not every run has something in every panel
        shown.update({label: line for line, label in zip(*axes.get_legend_handles_labels())})
    figure.legend(
        shown.values(),
        shown.keys(),
        loc='outside lower center',
        ncols=min(3, len(runs)),
        fontsize=8,
    )
    return figure
