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


class DataError(ConfigError):
    """A file of a data set is missing or damaged, or the folder is not laid out as it must be."""


class DamagedImageError(DataError):
    """One image file cannot be decoded, while its neighbours may well be whole."""
