"""Whatever a run says is text in its report: nothing of it runs, is fetched or is drawn in."""

import html.parser
import os
import re
import shutil

from chainerlp.extensions import files
from experiments.__main__ import main
from experiments.reports import report as report_module
from experiments.reports.tables import literal

import markdown
import pytest
import yaml

TEXTS = [
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '<img src=/etc/picture.png>',
    '[x](javascript:alert(1))',
    '[x](<javascript:alert(1)>)',
    '![x](http://example.com/x.png)',
    '![x](<report/../../secret.png>)',
    '<http://example.com>',
    '<javascript:alert(1)>',
    '[x][r]',
    '[r]: http://example.com',
    '`</code><b>`',
    '``` </code><script>',
    '\\[x](y) \\\\[x](javascript:y)',
    '| a | b |',
    '&lt;script&gt; &#60;b&#62;',
    '"onload="x',
    '</style></title><iframe src=x>',
    '\u202eevil \x1b[2J',
    '*a* _b_ **c**',
    '# a heading',
]
TAGS = {
    *('html', 'head', 'meta', 'title', 'link', 'style', 'body', 'h1', 'h2', 'h3', 'p', 'ul', 'li'),
    *('table', 'thead', 'tbody', 'tr', 'th', 'td', 'code', 'em', 'img', 'strong'),
}


class Page(html.parser.HTMLParser):
    """The tags and the text of a page; a tag or an address that a report has no need of fails."""

    def __init__(self, path):
        super().__init__()
        self.text = ''
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS
        for name, value in attributes:
            assert not name.startswith('on')
            if name in ('src', 'href'):
                assert value.startswith(('data:,', 'data:image/png;base64,'))

    def handle_data(self, data):
        self.text += data


def config(value):
    return yaml.safe_dump(
        {'name': 'e', 'dataset': {'name': 'digits', 'folder': value}, 'seed': 0, 'scaling': {}}
    )


def make_run(folder, value=''):
    """Makes a run of an older version, which had no checksums."""
    folder.mkdir(parents=True)
    (folder / 'config.yaml').write_text(config(value))
    (folder / 'log').write_text('[{"iteration": 2, "elapsed_time": 1.0, "main/loss": 2.0}]')
    (folder / 'result.json').write_text(
        '{"metric": "accuracy", "accuracy": 0.5, "loss": 1.0, "skipped": 0}'
    )
    rows = [files.Row(1, '/fc', 0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0)]
    files.start(folder / 'scales.csv', 1)
    files.append(folder / 'scales.csv', rows)


@pytest.fixture(autouse=True)
def one_picture(monkeypatch):
    """Draws the curves alone: the others take long."""
    draw = report_module._picture

    def picture(*arguments):
        return draw(*arguments) if arguments[2].endswith('curves') else ''

    monkeypatch.setattr(report_module, '_picture', picture)


@pytest.mark.parametrize('text', TEXTS)
def test_what_a_run_says_is_text_in_the_page(tmp_path, text):
    make_run(tmp_path / 'e' / 'one', text)
    make_run(tmp_path / 'e' / 'two', 'plain')
    make_run(tmp_path / 'e' / 'failed')
    (tmp_path / 'e' / 'failed' / 'error.txt').write_text(f'Traceback\n{text}\n')
    name = re.sub(r'[\0/]', '-', text)
    make_run(tmp_path / 'e' / name)
    assert main(['report', str(tmp_path / 'e'), '--html']) == 0
    page = Page(tmp_path / 'e' / 'report.html')
    shown = ' '.join(''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text).split())
    assert f'failed: {shown}' in page.text
    assert '3 finished of 4' in page.text


def test_names_that_are_no_text_or_as_long_as_can_be_are_shown(tmp_path):
    for name in (os.fsdecode(b'no\xfftext'), 'x' * 255, 'x' * 254 + 'y', 'a`b|c'):
        make_run(tmp_path / ('e' * 255) / name)
    assert main(['report', str(tmp_path), '--html']) == 0
    page = Page(tmp_path / 'report.html')
    assert '4 finished of 4' in page.text
    assert 'no%FFtext' in page.text and 'a%60b%7Cc' in page.text


def test_a_page_lets_nothing_run_or_be_fetched(tmp_path):
    make_run(tmp_path / 'e' / 'one')
    assert main(['report', str(tmp_path / 'e'), '--html']) == 0
    page = (tmp_path / 'e' / 'report.html').read_text()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    directives = dict(part.strip().split(' ', 1) for part in policy.split(';'))
    assert directives['default-src'] == "'none'" and directives['img-src'] == 'data:'
    assert 'script-src' not in directives and page.index('Content-Security') < page.index('<style>')


def test_only_pictures_of_the_report_are_put_into_the_page(tmp_path, monkeypatch):
    make_run(tmp_path / 'e' / 'one')
    shutil.copy(__file__, tmp_path / 'secret.png')
    monkeypatch.setattr(report_module, 'literal', lambda text: text)
    (tmp_path / 'e' / 'one' / 'error.txt').write_text('![x](<../secret.png>) ![x](/secret.png)')
    assert main(['report', str(tmp_path / 'e'), '--html']) == 0
    page = (tmp_path / 'e' / 'report.html').read_text()
    assert page.count('data:image/png') == 1  # the curves


@pytest.mark.parametrize('text', TEXTS)
def test_a_literal_text_is_what_it_was(text):
    shown = markdown.markdown(f'- x: {literal(text)}', extensions=['tables'])
    printable = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    assert html.unescape(re.sub('</?(ul|li)>', '', shown)).strip() == f'x: {printable}'
