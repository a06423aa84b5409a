"""The experiments: models, data, training runs and sweeps from config files.

``python -m experiments --help`` says what there is to run.
"""

import signal
import sys

# `python -m experiments` looks for the package. Until the command listens, Ctrl-C just ends it:
# KeyboardInterrupt in the midst of an import would be a traceback, or be taken for another error.
if sys.argv[0] == '-m' and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import chainerlp  # noqa: E402, F401 -- lets Chainer be imported on today's Python, NumPy and CuPy
