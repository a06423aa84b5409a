"""Errors that are the user's to mend: shown as one line, without a traceback."""


class _OneLineError(Exception):
    def __init__(self, message):
        super().__init__(' '.join(message.split()))


class ConfigError(_OneLineError):
    """A config, or something else that was asked for, is not as it must be.

    Its message is one line: where, what was given, what is allowed.

    Args:
        message (str): The message; line breaks in it, say from a file name, become spaces.
    """


class ReportError(ConfigError):
    """What a report was asked of is not there."""


class DataError(ConfigError):
    """A file of a data set is missing or damaged, or the folder is not laid out as it must be."""


class DamagedImageError(DataError):
    """One image file cannot be decoded, while its neighbours may well be whole."""


class RunError(_OneLineError):
    """A run failed for a reason that is none of its code, such as a full disk.

    Args:
        message (str): The reason, in one line; it needs no traceback.
    """
