"""One self-contained page of a report: its markdown as HTML, the pictures inside."""

import base64
import os
import re

import markdown

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
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


def render(text, folder):
    """Renders a report.

    Args:
        text (str): The report in markdown.
        folder (str): What the paths of its pictures are relative to.

    Returns:
        str: The page.
    """
    body = markdown.markdown(text, extensions=['tables'])
    body = re.sub(r'src="([^"]+\.png)"', lambda match: _inline(match, folder), body)
    title = re.match(r'# (.*)', text)
    return _PAGE.format(title=title.group(1) if title else 'Report', body=body)


def _inline(match, folder):
    with open(os.path.join(folder, match.group(1)), 'rb') as file:
        data = base64.b64encode(file.read()).decode('ascii')
    return f'src="data:image/png;base64,{data}"'
