"""The report: markdown with its pictures beside it, or one self-contained page."""

import base64
import datetime
import functools
import os
import re

from chainerlp.extensions import pictures
from chainerlp.extensions.files import write_text
from experiments.config import loading
from experiments.reports import figures, published, run_files, run_folder, windows
from experiments.reports.tables import literal, markdown_table, percent

import markdown

_TITLE = 'Runs'
# What some logs have besides.
_MORE = {
    'validation/main/accuracy_top5': 'top-5 accuracy',
    'data/images_per_sec': 'examples / s',
}
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
        experiments.config.errors.ConfigError: If there is no run.
    """
    runs = [run_folder.read(path) for path in run_folder.find(paths)]
    os.makedirs(os.path.join(folder, 'report'), exist_ok=True)
    text = '\n\n'.join([f'# {_TITLE}', *_sections(runs, folder)]) + '\n'
    target = os.path.join(folder, 'report.md')
    write_text(target, text)
    if html:
        target = os.path.join(folder, 'report.html')
        write_text(target, _page(text, folder))
    return target


def _sections(runs, folder):
    whole = [run for run in runs if run.problem is None]
    old = sum(not run.is_verified for run in whole)
    yield (
        f'{len(whole)} finished of {len(runs)}, read on {datetime.datetime.now():%Y-%m-%d %H:%M}.'
        + f' Of these, {old} have no checksums: older versions left none.' * bool(old)
    )
    lacking = [run for run in whole if 'incomplete' in run.result]
    if lacking:
        yield '## Marked by \\*: incompletely measured'
        yield '\n'.join(f'- `{run.name}`: {literal(run.result["incomplete"])}' for run in lacking)
    if whole:
        yield _results(whole)
        header, rows = published.table(whole)
        if len(rows) > 1:
            legend = 'Means over the seeds, ± standard deviation, of the test set at the end.'
            yield '## By way of scaling\n\n' + markdown_table(header, rows) + '\n\n' + legend
    found = windows.windows(whole)
    if found:
        yield '## Fixed scales beside policies\n\n' + markdown_table(*windows.table(found))
        yield (
            'Gradient errors, means over the seeds. The window: the fixed scales whose error is'
            ' within twice that of the best way of scaling. In brackets, a policy’s error over that'
            ' of the best fixed scale, which one would have had to search for.'
        )
        drawn = functools.partial(windows.figure, found)
        yield _picture(drawn, folder, 'windows', 'gradient error by fixed scale')
    broken = [run for run in runs if run.problem is not None]
    if broken:
        yield '## Not finished or broken'
        yield '\n'.join(f'- `{run.name}`: {literal(run.problem)}' for run in broken)
    figure = figures.curves(runs)
    if figure is not None:
        yield '## Curves'
        yield _picture(lambda: figure, folder, 'curves', 'losses and metrics by iteration')
    differing = loading.compare([run.config for run in whole])
    if differing:
        yield '## What differs between the configs'
        yield markdown_table(
            ['run', *(f'`{key}`' for key in differing)],
            [
                [f'`{run.name}`', *map(_shown, values)]
                for run, values in zip(whole, zip(*differing.values()))
            ],
        )
    yield from _scales(runs, folder)


def _results(runs):
    metrics = list(dict.fromkeys(run.metric for run in runs))
    header = ['run', *metrics, 'loss', 'underflow', 'worst layer', 'unscaled']
    with_errors = any(run.errors for run in runs)
    header += ['nonzero', 'gradient error'] * with_errors + ['skipped', 'ms / iteration']
    more = [key for key in _MORE if any(run.last(key) is not None for run in runs)]
    header += [_MORE[key] for key in more]
    theirs = [published.number(run.config) for run in runs]
    rows = []
    for run in runs:
        rates = (run.underflow.mean, run.underflow.worst_layer, run.underflow.mean_unscaled)
        rows.append(
            [
                f'`{run.name}`' + r' \*' * ('incomplete' in run.result),
                *(f'{float(run.result[m]):.4f}' if m == run.metric else '' for m in metrics),
                f'{float(run.result["loss"]):.4f}',
                *(percent(rate, 3) for rate in rates),
                *[percent(run.nonzero_share, 2), percent(run.gradient_error, 2)] * with_errors,
                str(run.result['skipped']),
                f'{run.seconds_per_iteration * 1e3:.1f}',
                *('' if value is None else f'{value:.4g}' for value in map(run.last, more)),
            ]
        )
    if any(theirs):
        header.append("the authors' number")
        for row, number in zip(rows, theirs):
            row.append(number or '')
    legend = (
        f'The {", the ".join(metrics)} and the loss are of the test set, at the end. Underflow is'
        ' the share of the elements of a layer’s data gradient that float16 (or the run’s own'
        ' format) rounds to zero,'
        ' averaged over layers and measured iterations; *unscaled* is what the same gradients would'
        ' have lost with every scale 1. In float32 runs nothing was lost: it is what float16 would'
        ' have lost; of models that compute in a lower format, of their layers’ output gradients.'
        ' Times contain evaluations and measurements.'
    )
    if with_errors:
        legend += (
            '\n\nUnderflow is *given what came from above*: a gradient that died on the way is no'
            ' loss further down. *Nonzero* is the share of elements that are left after rounding,'
            ' averaged over layers; the zeros of a ReLU are among the others. The *gradient error*'
            ' is ‖g − g32‖ / ‖g32‖ of each parameter against a float32 pass of the same weights,'
            ' data and random draws: the median over parameters, averaged over iterations. It holds'
            ' all that was lost on the way, and what the forward pass rounded.'
        )
    return '## Results\n\n' + markdown_table(header, rows) + '\n\n' + legend


def _scales(runs, folder):
    drawn = [run for run in runs if run.scales]
    if drawn:
        yield '## Scales and underflow'
    for run in drawn:
        yield f'### `{run.name}`'
        stem = run.name.replace('/', '-')
        accepted = run.config.get('scaling', {}).get('threshold')
        threshold = 1e-3 if accepted is None else accepted
        for kind, what, draw, *arguments in (
            ('scales', 'scales', pictures.scales),
            ('underflow', 'underflow', pictures.underflow, threshold),
            ('layers', 'underflow and scales', figures.by_layer, accepted),
            ('error', 'gradient error', pictures.gradient_error),
        ):
            rows = run.errors if kind == 'error' else run.scales
            if not rows:
                continue
            draw = functools.partial(draw, rows, *arguments, title=run.name)
            yield _picture(draw, folder, f'{stem}-{kind}', f'{what} of {run.name}')


def _picture(draw, folder, name, alternative):
    path = os.path.join(folder, 'report', f'{name}.png')
    try:
        draw().savefig(path)
    except (ValueError, OverflowError) as error:  # numbers that Matplotlib has no room for
        return f'{alternative}: not drawn ({run_files.reason(error)})'
    return f'![{alternative}](<report/{name}.png>)'


def _shown(value):
    return '' if value is None else literal(str(value))


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
