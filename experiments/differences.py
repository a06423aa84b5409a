"""In which keys the configs of runs differ."""


def of(configs):
    """Compares configs.

    Args:
        configs (list of dict): Nested mappings.

    Returns:
        dict: For each dotted key whose value is not the same in all, the values in the configs'
        order; ``None`` where a config lacks the key.
    """
    flat = [dict(_flatten(config)) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    rows = {key: [config.get(key) for config in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _flatten(config, prefix=''):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value
