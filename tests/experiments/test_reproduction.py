"""docs/reproduction.md says what the configs say, and has every published number."""

import pathlib
import re

from experiments.config import loading
from experiments.reports import published

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'reproduction.md').read_text(encoding='utf-8')
SECTIONS = dict(re.findall(r'^## `(\w+)`\n(.*?)(?=^## )', PAGE, re.MULTILINE | re.DOTALL))


def load(name):
    return loading.load(str(ROOT / 'configs' / f'{name}.yaml'))


def rows(name):
    """The cells of the tables of a section, each a list."""
    lines = [line for line in SECTIONS[name].splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]


@pytest.mark.parametrize('name', SECTIONS)
def test_the_column_of_ours_is_what_the_config_says(name):
    config = load(name).model_dump()
    said = dict(
        row[1].strip('`').split(': ', 1) for row in rows(name) if len(row) == 2 and '`' in row[1]
    )
    assert said
    for key, value in said.items():
        assert key.split('.')[0] in config and published.value_of(config, key) == yaml.safe_load(
            value
        )
    # Nothing that a number's setting asks for is left out.
    for run in load(name).runs():
        entry = published.find(run.model_dump())
        wanted = set(entry.setting if entry else ())
        assert {key for key in wanted if not key.startswith('scaling.')} <= {
            *said,
            *('dataset.name', 'model.name'),
        }


def test_every_number_is_there_with_the_command_and_the_run_that_it_belongs_to():
    found = []
    for name in SECTIONS:
        prefix = re.search(r'^Theirs: `([^`]*)`', SECTIONS[name], re.MULTILINE)
        runs = {run.run_name: run for run in load(name).runs()}
        for number, options, run, scaling in (row for row in rows(name) if len(row) == 4):
            if run.strip('`') not in runs:
                continue  # the header
            config = runs[run.strip('`')].model_dump()
            entry = published.find(config)
            assert str(entry) == number
            assert entry.command == f'{prefix.group(1)} {options.strip("`")}'
            for key, value in yaml.safe_load(scaling.strip('`')).items():
                assert config['scaling'][key] == value
            found.append(entry)
    assert len(found) == len(published.NUMBERS) == len({id(entry) for entry in found})


def test_the_commands_that_it_shows_name_configs():
    shown = re.findall(r'experiments sweep (configs/\S+\.yaml)', PAGE)
    assert len(shown) >= len(SECTIONS) - 1
    assert all((ROOT / path).exists() for path in shown)
