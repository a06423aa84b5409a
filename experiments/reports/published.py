"""The authors' published numbers, each with the setting that it belongs to, and a table of runs.

The numbers are of the repositories of arXiv 1910.12385 and IJCAI 2020/404 (kumasento/ada-loss and
kumasento/gradient-scaling): their READMEs, notebooks and scripts. Each is the best of a training's
evaluations, in percent.
"""

import dataclasses
import statistics

GIVEN = '(given)'
"""In a setting: anything but null."""


@dataclasses.dataclass(frozen=True)
class Published:
    """What the authors report for one setting.

    Attributes:
        runs (tuple of float): The best evaluation of each of their runs, in percent; none, if it
            diverged.
        metric (str): Of what.
        source (str): Where it stands in their repositories, below examples/adaptive_loss_scaling.
        command (str): How they started it: the script there, and its options.
        setting (dict): What a run must have to be set beside it: dotted keys of a config and their
            values; :data:`GIVEN` stands for anything but null. A key that a config lacks is null,
            and null is false, so that a run of before there was an option is one without it.
    """

    runs: tuple
    metric: str
    source: str
    command: str
    setting: dict

    def __str__(self):
        """Returns such as ``'76.02 ± 0.07, 2 runs (top-1, %)'``, or ``'diverged (mAP, %)'``."""
        value = 'diverged'
        if self.runs:
            value = f'{statistics.fmean(self.runs):.2f}'
        if len(self.runs) > 1:
            value += f' ± {statistics.stdev(self.runs):.2f}, {len(self.runs)} runs'
        return f'{value} ({self.metric}, %)'

    def differences(self, config):
        """Returns where a run's config differs: ``{key: (theirs, the run's)}``."""
        found = {key: (wanted, value_of(config, key)) for key, wanted in self.setting.items()}
        return {
            key: (wanted, value)
            for key, (wanted, value) in found.items()
            if (value is None if wanted == GIVEN else (value or None) != (wanted or None))
        }


def value_of(config, key):
    """Returns what a config, a dict, holds at a dotted key; ``None`` if there is no such key."""
    for part in key.split('.'):
        config = config.get(part) if isinstance(config, dict) else None
    return list(config) if isinstance(config, tuple) else config


# Data that is all there, and no part of the model made smaller.
_WHOLE = {'dataset.train_size': None, 'dataset.test_size': None, 'train.max_iterations': None}
_SGD = {'optimizer.name': 'momentum_sgd', 'optimizer.momentum': 0.9}
_IMAGENET = {
    **_WHOLE,
    **_SGD,
    'dataset.name': 'imagenet',
    'dataset.size': 224,
    'dataset.augment': True,
    'dataset.normalization': 'mean',
    'model.name': 'resnet_imagenet',
    'model.variant': 'zhao',
    'model.stride_in_3x3': False,
    'optimizer.corrected': True,
    'optimizer.lr': 0.2,
    'optimizer.weight_decay': 1e-4,
    'optimizer.undecayed': ['beta', 'gamma'],
    'schedule.step.epochs': [30, 60, 80],
    'schedule.step.factor': 0.1,
    'schedule.warmup.epochs': 5,
    'schedule.warmup.factor': 0.5,
    'schedule.warmup.shape': 'linear',
    'train.batch_size': 512,
    'train.workers': 16,
    'train.epochs': 90,
    'train.evaluate.epochs': 1,
}
_RESNET18 = {**_IMAGENET, 'model.depth': 18, 'model.zero_init_residual': False}
_RESNET50 = {**_IMAGENET, 'model.depth': 50, 'model.zero_init_residual': True}
_SSD = {
    **_WHOLE,
    **_SGD,
    'dataset.name': 'voc',
    'dataset.train': ['VOC2007/trainval', 'VOC2012/trainval'],
    'dataset.test': ['VOC2007/test'],
    'dataset.difficult': False,
    'dataset.eleven_point': True,
    'dataset.augment': True,
    'model.name': 'ssd',
    'model.width': 1.0,
    'model.pretrained': GIVEN,
    # Their casts had no scale yet: it came on 12 January 2020, after these runs.
    'model.scaled_cast': False,
    'optimizer.lr': 1e-3,
    'optimizer.weight_decay': 5e-4,
    'optimizer.undecayed': ['b'],
    'optimizer.bias_rate': 2.0,
    'schedule.step.iterations': [80000, 100000],
    'schedule.step.factor': 0.1,
    'train.iterations': 120000,
    'train.evaluate.iterations': 20000,
}
_BATCH_8 = {
    'train.batch_size': 8,
    'schedule.warmup.iterations': 1000,
    'schedule.warmup.factor': 0.1,
    'schedule.warmup.shape': 'constant',
}
_SSD512 = {**_SSD, **_BATCH_8, 'model.size': 512}
_SSD512_BATCH_32 = {**_SSD, 'model.size': 512, 'train.batch_size': 32, 'schedule.warmup': None}
_SSD300 = {**_SSD, **_BATCH_8, 'model.size': 300}
_SEGNET = {
    **_WHOLE,
    **_SGD,
    'dataset.name': 'camvid',
    'dataset.train': 'train',
    'dataset.test': 'val',
    'dataset.crop': None,
    'dataset.normalization': 'none',
    'dataset.augment': True,
    'model.name': 'segnet',
    'model.channels': 64,
    'optimizer.lr': 0.1,
    'optimizer.weight_decay': 5e-4,
    'schedule.step': None,
    'schedule.warmup': None,
    'train.batch_size': 12,
    'train.iterations': 16000,
    'train.evaluate.iterations': 1000,
}

_MIXED = {
    'scaling.dtype': 'mixed16',
    'scaling.compute': None,
    'scaling.gradient_format': None,
}
_FP32 = {'scaling.method': 'fp32'}
_NONE = {**_MIXED, 'scaling.method': 'none'}
_DYNAMIC = {**_MIXED, 'scaling.method': 'dynamic', 'scaling.interval': 10}


def _fixed(scale):
    return {**_MIXED, 'scaling.method': 'fixed', 'scaling.scale': float(scale)}


def _adaptive(interval=1, max_scale=16, max_total_scale=1024, variance='product'):
    return {
        **_MIXED,
        'scaling.method': 'adaptive',
        'scaling.threshold': 1e-3,
        'scaling.power_of_two': True,
        'scaling.initial_scale': 1.0,
        'scaling.scale_weights': None,
        'scaling.interval': interval,
        'scaling.max_scale': float(max_scale),
        'scaling.max_total_scale': float(max_total_scale),
        'scaling.variance': variance,
    }


def _all(metric, source, command, task, rows):
    return [
        Published(tuple(runs), metric, source, f'{command} {options}', {**task, **scaling})
        for runs, options, scaling in rows
    ]


_RESNETS = 'imagenet/DEPRECATED Analysis_ResNet_Result.ipynb'
_SSD_RESULT = 'ssd/SSD Result.ipynb'
_APPROX = '--loss-scale-method approx_range'
_EVERY = f'{_APPROX} --update-per-n-iteration'
_DYN = '--loss-scale-method fixed --dynamic-interval 10'
_INIT = '--loss-scale-method fixed --init-scale'
_WIDE = '--scale-upper-bound 65504 --accum-upper-bound 65504'

NUMBERS = (
    *_all(
        'top-1',
        _RESNETS,
        'mpiexec -n 16 train_imagenet_multi.py -a resnet18 --dtype mixed16',
        _RESNET18,
        [
            ([71.48], _APPROX, _adaptive()),
            ([71.29], f'{_EVERY} 1000', _adaptive(1000)),
            ([71.44], f'{_EVERY} 1000 --scale-upper-bound 128', _adaptive(1000, 128)),
            ([71.24], f'{_INIT} 1', _NONE),
            ([71.39], f'{_INIT} 128', _fixed(128)),
            ([71.39], _DYN, _DYNAMIC),
        ],
    ),
    *_all(
        'top-1',
        _RESNETS,
        'mpiexec -n 16 train_imagenet_multi.py -a resnet50 --dtype mixed16',
        _RESNET50,
        [
            ([76.07, 75.98], _APPROX, _adaptive()),
            ([76.07], f'{_EVERY} 1000', _adaptive(1000)),
            ([76.07], f'{_EVERY} 1000 --accum-upper-bound 2048', _adaptive(1000, 16, 2048)),
            ([76.07], f'{_EVERY} 1000 --accum-upper-bound 4096', _adaptive(1000, 16, 4096)),
            ([76.22], f'{_EVERY} 1000 --scale-upper-bound 128', _adaptive(1000, 128)),
            ([75.98], f'{_EVERY} 1000 --scale-upper-bound 1024', _adaptive(1000, 1024)),
            ([76.07], f'{_INIT} 1', _NONE),
            ([76.03], f'{_INIT} 128', _fixed(128)),
            ([76.12], _DYN, _DYNAMIC),
        ],
    ),
    *_all(
        'mAP',
        _SSD_RESULT,
        'train_multi.py --model ssd512 --batchsize 8 --dtype mixed16',
        _SSD512,
        [
            ([79.27], _APPROX, _adaptive()),
            ([79.24, 78.73], f'{_EVERY} 10', _adaptive(10)),
            ([], f'{_INIT} 1', _NONE),
            ([78.83], f'{_INIT} 8', _fixed(8)),
            ([78.71, 78.88, 79.04], f'{_INIT} 128', _fixed(128)),
            ([78.36], f'{_INIT} 256', _fixed(256)),
            ([75.04], _DYN, _DYNAMIC),
        ],
    ),
    *_all(
        'mAP',
        'ssd/README.md',
        'train_multi.py --model ssd512 --batchsize 8',
        _SSD512,
        [([78.94], '--dtype float32', _FP32)],
    ),
    *_all(
        'mAP',
        _SSD_RESULT,
        'mpiexec -n 4 train_multi.py --model ssd512 --batchsize 32 --dtype mixed16',
        _SSD512_BATCH_32,
        [
            ([80.30], _APPROX, _adaptive()),
            ([79.78], f'{_EVERY} 10', _adaptive(10)),
            ([80.21, 79.97], f'{_EVERY} 100', _adaptive(100)),
            ([80.31], f'{_EVERY} 100 --accum-upper-bound 8192', _adaptive(100, 16, 8192)),
            ([], f'{_INIT} 1', _NONE),
            ([80.01], f'{_INIT} 128', _fixed(128)),
            ([80.17], _DYN, _DYNAMIC),
        ],
    ),
    *_all(
        'mAP',
        'ssd/SSD-300 Training Curves.ipynb',
        'train_multi.py --model ssd300 --batchsize 8 --dtype mixed16',
        _SSD300,
        [
            ([76.35], f'{_EVERY} 100 {_WIDE}', _adaptive(100, 65504, 65504)),
            ([69.26], _DYN, _DYNAMIC),
        ],
    ),
    # Read from the bars of a picture, to a tenth; the second run of 4096 is of the training curves.
    *_all(
        'mAP',
        'ssd/SSD-300 Fixed-LS.ipynb',
        'train_multi.py --model ssd300 --batchsize 8 --dtype mixed16',
        _SSD300,
        [
            (runs, f'{_INIT} {scale}', _fixed(scale))
            for scale, runs in {
                8: [76.0],
                128: [76.1],
                512: [75.9],
                1024: [76.1],
                2048: [75.7],
                4096: [76.3, 76.23],
                8192: [75.9],
            }.items()
        ],
    ),
    *_all(
        'mIoU',
        'segnet/SegNet Training Curve.ipynb',
        'train.py --dtype mixed16',
        _SEGNET,
        [
            (
                [60.38],
                f'{_APPROX} --n-uf 1e-3',
                {**_adaptive(100, 65504, 65504, 'sum'), 'model.scaled_cast': True},
            ),
            ([60.21], _DYN, _DYNAMIC),
        ],
    ),
)


def find(config):
    """Returns the :class:`Published` of a run's setting, given its config, or ``None``."""
    return next((entry for entry in NUMBERS if not entry.differences(config)), None)


def number(config):
    """Returns what the authors published for a run's setting as a str, or ``None``."""
    found = find(config)
    return None if found is None else str(found)


def table(runs):
    """Makes the paper's table of finished runs: a row a way of scaling, a column an experiment.

    Returns:
        tuple: The header, and the rows, of strings: way of scaling; for each experiment the mean of
        its metric over the seeds in percent, with the standard deviation if there are several; and,
        where the authors published numbers for one of them, these.
    """
    found, theirs = {}, {}
    for run in runs:
        row = _name_of_scaling(run)
        found.setdefault(row, {}).setdefault(_column(run), []).append(float(run.result[run.metric]))
        published = number(run.config)
        if published is not None:
            theirs.setdefault(row, {})[_column(run)] = published
    columns = list(dict.fromkeys(column for values in found.values() for column in values))
    with_theirs = [column for column in columns if any(column in row for row in theirs.values())]
    header = ['scaling', *columns, *(f"{column}, the authors' number" for column in with_theirs)]
    table_rows = []
    for row, values in found.items():
        cells = [_mean(values.get(column, [])) for column in columns]
        cells += [theirs.get(row, {}).get(column, '') for column in with_theirs]
        table_rows.append([row, *cells])
    return header, table_rows


def _name_of_scaling(run):
    name = run.name.rpartition('/')[2]
    return name.rpartition('-seed=')[0] or name


def _column(run):
    return f'{run.config.get("name", run.name)}, {run.metric} %'


def _mean(values):
    if not values:
        return ''
    mean = f'{100 * statistics.fmean(values):.2f}'
    return mean if len(values) < 2 else f'{mean} ± {100 * statistics.stdev(values):.2f}'
