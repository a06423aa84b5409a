"""Small data sets in the layouts of the real ones, for where there are none; noise, all of it.

Each is written to a folder of the name under which the configs look for it in ``data``.
"""

import pickle

import numpy
from PIL import Image

CLASSES_OF_IMAGENET = 5
SIDE = 300  # of cells-voc's images


def mnist(folder):
    """Writes the four idx files: 40 digits to train with, 20 to test with."""
    rng = numpy.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, count in (('train', 40), ('t10k', 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=numpy.uint8)
        labels = numpy.arange(count, dtype=numpy.uint8) % 10
        for kind, array in (('images-idx3', images), ('labels-idx1', labels)):
            sizes = b''.join(size.to_bytes(4, 'big') for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (folder / f'{split}-{kind}-ubyte').write_bytes(content)


def cifar10(folder):
    """Writes five batches to train with and one to test with, of 20 images each."""
    folder.mkdir(parents=True)
    for seed, name in enumerate([*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch']):
        rows = numpy.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=numpy.uint8)
        content = {b'data': rows, b'labels': [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def imagenet(folder):
    """Writes a folder a class, of one image each, under ``train``; as the sample it has no val."""
    for label in range(CLASSES_OF_IMAGENET):
        _image(folder / 'train' / f'n{label:08}' / f'n{label:08}_0.JPEG', 160, 120, label)


def cells(folder):
    """Writes a year of PASCAL VOC: 6 images to train with and 3 to evaluate with."""
    year = folder / 'VOCdevkit' / 'VOC2007'
    for below in ('Annotations', 'ImageSets/Main'):
        (year / below).mkdir(parents=True)
    rng = numpy.random.default_rng(0)
    for split, names in (('train', range(6)), ('val', range(6, 9))):
        (year / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(map(str, names)))
        for name in names:
            _image(year / 'JPEGImages' / f'{name}.jpg', SIDE, SIDE, name)
            text = _annotation(rng.integers(1, 200, 2), rng.integers(30, 90, 2))
            (year / 'Annotations' / f'{name}.xml').write_text(text)


def _annotation(corner, size):
    (x, y), (width, height) = corner.tolist(), size.tolist()
    box = f'<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + width}</xmax><ymax>{y + height}</ymax>'
    image = f'<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>'
    cell = f'<object><name>cellbody</name><bndbox>{box}</bndbox></object>'
    return f'<annotation>{image}{cell}</annotation>'


def camvid(folder):
    """Writes 6 frames to train with and 2 to evaluate with, and the lists of them."""
    for split, names in (('train', range(6)), ('val', range(6, 8))):
        (folder / f'{split}annot').mkdir(parents=True)
        lines = []
        for name in names:
            _image(folder / split / f'{name}.png', 480, 360, name)
            # Blocks of 11 classes and void.
            labels = numpy.random.default_rng(name).integers(0, 12, (9, 12), dtype=numpy.uint8)
            labels = labels.repeat(40, axis=0).repeat(40, axis=1)
            Image.fromarray(labels).save(folder / f'{split}annot' / f'{name}.png')
            lines.append(f'{split}/{name}.png {split}annot/{name}.png')
        (folder / f'{split}.txt').write_text('\n'.join(lines))


def _image(path, width, height, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = numpy.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=numpy.uint8)
    Image.fromarray(coarse).resize((width, height)).save(path)


WRITERS = {
    'mnist-10k': mnist,
    'cifar-10-batches-py': cifar10,
    'imagenet-sample': imagenet,
    'cells-voc': cells,
    'camvid': camvid,
}
