"""Training runs: a config is trained into a folder of results, alone or in a sweep."""
