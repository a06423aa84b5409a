"""The numbers of the guide to GPUs are those of the page that a command makes."""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[3] / 'docs'


def test_the_guide_says_what_was_counted():
    page = (DOCS / 'results' / 'emulated.md').read_text(encoding='utf-8')
    section = page.split('## ResNet-20')[1].split('## ')[0]
    rows = [line.strip('| ').split(' | ') for line in section.splitlines() if line[:2] == '| ']
    launches, moved = ({row[0]: row[n] for row in rows[2:]} for n in (1, 4))
    methods = 'plain Chainer mixed16', 'fixed', 'adaptive', 'per_sample'
    counted = [launches[method].split()[0] for method in methods]
    counted += [re.search(r'\((.*)\)', moved[method])[1] for method in methods[2:]]
    guide = (DOCS / 'gpu.md').read_text(encoding='utf-8')
    sentence = guide.split('an iteration of ResNet-20')[1].split('Statistics')[0]
    assert re.findall(r'\d+(?:\.\d+)?', sentence.replace('mixed16', '')) == counted
