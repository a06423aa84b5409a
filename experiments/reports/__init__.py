"""Reports on any runs: a table, the curves, the pictures of the scales, and what differs."""

from experiments.reports.report import write

__all__ = ['write']
