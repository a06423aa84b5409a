"""The experiments: models, data, training runs and sweeps from config files.

``python -m experiments --help`` says what there is to run.
"""

import chainerlp  # noqa: F401 -- lets Chainer be imported on today's Python, NumPy and CuPy
