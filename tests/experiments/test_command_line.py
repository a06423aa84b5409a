"""The command line where something around it is missing: a reader, a package."""

import subprocess
import sys

from experiments import __main__ as command_line
from experiments.reports import layer_figures


def python(code, **options):
    return subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, **options)


def test_a_pipe_that_is_closed_is_silent():
    code = "from experiments.__main__ import main; raise SystemExit(main(['schema']))"
    process = python(code, stdout=subprocess.PIPE)
    process.stdout.close()  # as `head` does, here before anything is printed
    assert process.stderr.read() == b''
    assert process.wait() == 141


def test_a_package_that_is_missing_is_one_line_that_says_what_to_install():
    code = "import sys; sys.modules['pydantic'] = None; import experiments.__main__"
    process = python(code)
    said = process.stderr.read().decode()
    assert said == "the experiments need pydantic: in the checkout, pip install '.[experiments]'\n"
    assert process.wait() == 1


def test_the_figures_that_it_offers_are_those_that_there_are():
    # It names them without importing Matplotlib.
    assert set(command_line._FIGURES) == set(layer_figures.FIGURES)
