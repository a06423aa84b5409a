"""Reports on runs: results and their tables, curves, pictures of the scales."""
