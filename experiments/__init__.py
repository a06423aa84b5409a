"""The experiments: models, data, training runs and sweeps from config files.

``python -m experiments --help`` says what there is to run.
"""
