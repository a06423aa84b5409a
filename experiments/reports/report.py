"""The report: markdown with its pictures beside it, or one self-contained page."""

import base64
import datetime
import functools
import os
import re

from chainerlp.extensions.files import atomic_write, make_folder, write_text
from experiments.config import loading
from experiments.config.errors import ConfigError
from experiments.reports import (
    by_way,
    figures,
    layer_figures,
    run_files,
    run_folder,
    windows,
)
from experiments.reports.tables import LOSS, literal, markdown_table, percent, share

import markdown

_TITLE = 'Runs'
# What some logs have besides.
_MORE = {
    'validation/main/accuracy_top5': 'top-5 accuracy',
    'data/images_per_sec': 'examples / s',
}
_RESULTS = (
    'The {metrics} and the loss are of the test set; *last*: at the end, *best*: the best of the'
    ' evaluations on the way. Underflow is the share of the elements of a layer’s data gradient'
    ' that float16 (or the run’s own format) rounds to zero, averaged over layers and measured'
    ' iterations; *unscaled* is what the same gradients would have lost with every scale 1. In'
    ' float32 runs nothing was lost: it is what float16 would have lost; of models that compute in'
    ' a lower format, of their layers’ output gradients. Times contain evaluations and'
    ' measurements.'
)
_ERRORS = (
    'Underflow is *given what came from above*: a gradient that died on the way is no loss further'
    ' down. *Nonzero* is the share of elements that are left after rounding, averaged over layers;'
    ' the zeros of a ReLU are among the others. The *gradient error* is ‖g − g32‖ / ‖g32‖ of each'
    ' parameter against a float32 pass of the same weights, data and random draws: the median over'
    ' parameters, averaged over iterations. It holds all that was lost on the way, and what the'
    ' forward pass rounded.'
)
_UNMEASURED = (
    '– was not measured: underflow, if the run ended before its `report.interval`; nonzero and'
    ' gradient error, if `report.gradient_error` was not asked for, or not reached.'
)
_BY_WAY = (
    'Means over the runs, ± standard deviation. The authors’ numbers are the best of a training’s'
    ' evaluations, and stand only beside runs of their setting.'
)
_PICTURES = 'report'
_UNDRAWABLE = ValueError, OverflowError  # of numbers that Matplotlib has no room for
_MOST_NAMED = 6  # of those who have one value
# Pictures that the page holds and its own style, and nothing that runs or is fetched.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)
# What would be a link, or HTML. A report has neither, and what a run says brings none into it.
_NOT_IN_PAGES = (
    *('reference', 'link', 'image_reference', 'short_reference', 'short_image_ref'),
    *('autolink', 'automail', 'html'),
)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem }}
body {{ padding: 0 1rem }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ border-bottom: 1px solid #ccc; padding: .25rem .7rem; white-space: nowrap }}
img {{ max-width: 100% }}
code {{ font-size: .9em }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write(paths, folder, html=False):
    """Writes ``report.md`` and its pictures, and ``report.html`` if it is asked for.

    Args:
        paths (list of str): Folders of runs, or folders that hold some.
        folder (str): Where the report goes.
        html (bool): Whether to write the self-contained page as well.

    Returns:
        str: The path of the page, or of the markdown.

    Raises:
        ConfigError: If there is no run.
    """
    runs = run_folder.read_all(paths)
    make_folder(os.path.join(folder, _PICTURES))
    text = '\n\n'.join([f'# {_TITLE}', *_sections(runs, folder)]) + '\n'
    target = os.path.join(folder, 'report.md')
    write_text(target, text)
    if html:
        target = os.path.join(folder, 'report.html')
        write_text(target, _page(text, folder))
    return target


def write_figure(name, runs, folder):
    """Writes one of :data:`~experiments.reports.layer_figures.FIGURES` as a PNG file.

    Args:
        name (str): Which.
        runs (list of ~experiments.reports.run_folder.RunFolder): Of which runs, in their order.
        folder (str): Where it goes.

    Returns:
        str: Its path.

    Raises:
        ConfigError: If no run has what it shows, or there is no room for all of it.
    """
    figure = layer_figures.draw(name, runs)
    make_folder(os.path.join(folder, _PICTURES))
    path = os.path.join(folder, _PICTURES, f'{name}.png')
    try:
        with atomic_write(path) as unfinished:
            figure.savefig(unfinished)
    except _UNDRAWABLE as error:
        raise ConfigError(f'--figure {name}: not drawn ({run_files.reason(error)})') from None
    return path


def _sections(runs, folder):
    whole = [run for run in runs if run.problem is None]
    old = sum(not run.is_verified for run in whole)
    yield (
        f'{len(whole)} finished of {len(runs)}, read on {datetime.datetime.now():%Y-%m-%d %H:%M}.'
        + f' Of these, {old} have no checksums: older versions left none.' * bool(old)
    )
    broken = [run for run in runs if run.problem is not None]
    if broken:
        yield '## Not finished or broken'
        yield '\n'.join(f'- `{run.name}`: {literal(run.problem)}' for run in broken)
    lacking = [run for run in whole if 'incomplete' in run.result]
    if lacking:
        yield '## Marked by \\*: incompletely measured'
        yield '\n'.join(f'- `{run.name}`: {literal(run.result["incomplete"])}' for run in lacking)
    experiments = _experiments(runs)
    differing = loading.compare([_common(of_one) for of_one in experiments.values()])
    if differing:
        yield '## What differs between the experiments'
        yield _differences(experiments, differing)
    for name, of_one in experiments.items():
        yield f'## `{name}`'
        yield from _experiment(name, of_one, folder)


def _experiments(runs):
    """Returns the runs by the folder that holds theirs, named as short as it is unique."""
    by_folder = {}
    for run in runs:
        by_folder.setdefault(os.path.dirname(os.path.normpath(run.path)), []).append(run)
    names = [of_one[0].name.rpartition('/')[0] for of_one in by_folder.values()]
    return {
        run_folder.plain_path(folder) if names.count(name) > 1 else name: of_one
        for name, (folder, of_one) in zip(names, by_folder.items())
    }


def _common(runs):
    """Returns the config of an experiment, without what its runs have of their own."""
    return {k: v for k, v in runs[0].config.items() if k not in ('name', 'seed', 'scaling')}


def _differences(names, differing):
    """Returns a table with a row for each value of a key, and who has it; others lack the key."""
    rows = []
    for key, values in differing.items():
        by_value = {}
        for name, value in zip(names, values):
            if value is not None:
                by_value.setdefault(literal(str(value)), []).append(f'`{name}`')
        for value, having in by_value.items():
            named = ', '.join(having[:_MOST_NAMED])
            more = f' and {len(having) - _MOST_NAMED} more' if len(having) > _MOST_NAMED else ''
            rows.append([f'`{key}`', value, named + more])
    return markdown_table(['key', 'value', 'of'], rows, left=3)


def _experiment(name, runs, folder):
    whole = [run for run in runs if run.problem is None]
    stem = name.strip(os.sep).replace(os.sep, '-')
    if whole:
        yield _results(whole)
        groups = by_way.group(whole)
        header, rows = by_way.table(groups)
        yield '### By way of scaling\n\n' + markdown_table(header, rows) + '\n\n' + _BY_WAY
        differing = loading.compare([alike[0].config for alike in groups.values()])
        differing.pop('scaling.label', None)  # it is the name
        if differing:
            yield '### What differs between the ways'
            yield _differences(groups, differing)
    found = windows.windows(whole)
    if found:
        yield '### Fixed scales beside policies\n\n' + markdown_table(*windows.table(found))
        yield (
            'Gradient errors, means over the seeds. The window: the fixed scales whose error is'
            ' within twice that of the best way of scaling. In brackets, a policy’s error over that'
            ' of the best fixed scale, which one would have had to search for.'
        )
        drawn = functools.partial(windows.figure, found)
        yield _picture(drawn, folder, f'{stem}-windows', 'gradient error by fixed scale')
    figure = figures.curves(runs)
    if figure is not None:
        yield '### Curves'
        yield _picture(lambda: figure, folder, f'{stem}-curves', 'losses and metrics by iteration')
    yield from _layers([alike[0] for alike in by_way.group(runs).values()], stem, folder)


def _layers(runs, stem, folder):
    """Yields the pictures of layers, each of the first run of every way of scaling."""
    scaled = [run for run in runs if run.scales]
    drawn = [
        ('scales', layer_figures.total_scales, scaled),
        ('underflow', layer_figures.underflow, scaled),
        ('layers', layer_figures.underflow_by_layer, scaled),
        ('errors', figures.gradient_errors, [r for r in runs if any(e.error for e in r.errors)]),
    ]
    for name, (draw, *_) in layer_figures.FIGURES.items():
        having = [run for run in runs if layer_figures.can_be_drawn(name, run)]
        drawn.append((name, draw, having if name != 'difference' else []))
    if any(having for *_, having in drawn):
        yield '### Layers'
    for name, draw, having in drawn:
        if having:
            what = f'{name} of {having[0].name.rpartition("/")[0]}'
            yield _picture(functools.partial(draw, having), folder, f'{stem}-{name}', what)


def _results(runs):
    metrics = list(dict.fromkeys(run.metric for run in runs))
    header = ['run', *(f'{m}, {which}' for m in metrics for which in ('last', 'best'))]
    header += ['loss', 'underflow', 'worst layer', 'unscaled']
    with_errors = any(run.errors for run in runs)
    header += ['nonzero', 'gradient error'] * with_errors + ['skipped', 'ms / iteration']
    more = [key for key in _MORE if any(run.last(key) is not None for run in runs)]
    header += [_MORE[key] for key in more]
    rows = []
    for run in runs:
        rates = [run.underflow.mean, run.underflow.worst_layer, run.underflow.mean_unscaled]
        rates += [run.nonzero_share, run.gradient_error] * with_errors
        row = [f'`{run.name.rpartition("/")[2]}`' + r' \*' * ('incomplete' in run.result)]
        for metric in metrics:
            is_its = metric == run.metric
            row += [share(float(run.result[metric])) if is_its else '']
            row += [share(run.best) if is_its else '']
        row += [LOSS(float(run.result['loss'])), *map(percent, rates)]
        row += [str(run.result['skipped']), f'{run.seconds_per_iteration * 1e3:.1f}']
        rows.append(row + ['' if v is None else f'{v:.4g}' for v in map(run.last, more)])
    legend = _RESULTS.format(metrics=', the '.join(metrics))
    if with_errors:
        legend += f'\n\n{_ERRORS}'
    if any('–' in row for row in rows):
        legend += f'\n\n{_UNMEASURED}'
    return '### Results\n\n' + markdown_table(header, rows) + '\n\n' + legend


def _picture(draw, folder, name, alternative):
    path = os.path.join(folder, _PICTURES, f'{name}.png')
    try:
        with atomic_write(path) as unfinished:
            draw().savefig(unfinished)
    except _UNDRAWABLE as error:
        return f'{alternative}: not drawn ({run_files.reason(error)})'
    return f'![{alternative}](<{_PICTURES}/{name}.png>)'


def _page(text, folder):
    """Returns the markdown as one HTML page with the pictures inside."""
    converter = markdown.Markdown(extensions=['tables'])
    converter.preprocessors.deregister('html_block')
    converter.parser.blockprocessors.deregister('reference')
    for pattern in _NOT_IN_PAGES:
        converter.inlinePatterns.deregister(pattern)
    body = converter.convert(text)

    def inline(match):
        source = re.search('src="(report/[^"/]+[.]png)"', match.group())
        if source is None:
            return ''
        with open(os.path.join(folder, source.group(1)), 'rb') as file:
            data = base64.b64encode(file.read()).decode('ascii')
        return match.group().replace(source.group(1), f'data:image/png;base64,{data}')

    body = re.sub('<img [^>]*>', inline, body)
    return _PAGE.format(title=_TITLE, policy=_POLICY, body=body)
