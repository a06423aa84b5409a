"""The old place of the errors, until the data sets' imports are moved."""

from experiments.config.errors import (  # noqa: F401
    ConfigError,
    DamagedImageError,
    DataError,
    RunError,
)
