"""Errors that are the user's to mend: shown as one line, without a traceback."""


class ConfigError(Exception):
    """A config, or something else that was asked for, is not as it must be.

    Its message is one line: where, what was given, what is allowed.

    Args:
        message (str): The message; line breaks in it, say from a file name, become spaces.
    """

    def __init__(self, message):
        super().__init__(' '.join(message.split()))


class ReportError(ConfigError):
    """What a report was asked of is not there."""
