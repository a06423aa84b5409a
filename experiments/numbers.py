"""Numbers on the command line."""

import argparse


def positive(text):
    """Returns the integer that an option was given, for argparse.

    Raises:
        argparse.ArgumentTypeError: If it is not 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'given {text!r}, allowed: an integer >= 1')
    return int(text)
