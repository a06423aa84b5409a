"""Trains without any scaling, tells which layers underflow and why, and draws it.

Cells for a notebook, one after another: replace the model, the data and the optimizer by yours.
"""

import argparse
import os

import chainerlp
from chainerlp.extensions import files, pictures

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import training
from sklearn.datasets import load_digits

chainer.global_config.dtype = chainer.mixed16


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--epoch', type=int, default=20)
    parser.add_argument('--out', default='result')
    args = parser.parse_args(arguments)

    # A model, data and an optimizer, as without chainerlp.
    images, labels = load_digits(return_X_y=True)
    digits = chainer.datasets.TupleDataset(
        (images / 16).astype(numpy.float16), labels.astype(numpy.int32)
    )
    layers = [layer for _ in range(11) for layer in (L.Linear(None, 128), F.relu)]
    model = L.Classifier(chainer.Sequential(*layers, L.Linear(None, 10)))
    optimizer = chainer.optimizers.MomentumSGD(lr=0.01).setup(model)
    optimizer.use_fp32_update()

    # A training of it; ScaleReport changes nothing in it.
    iterator = chainer.iterators.SerialIterator(digits, 256)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(chainerlp.extensions.ScaleReport(trigger=(2, 'iteration')))
    trainer.run()

    # Which layers underflowed when: a map, layers by iterations.
    rows = files.read(os.path.join(args.out, 'scales.csv'))
    picture = os.path.join(args.out, 'underflow.png')
    pictures.underflow(rows, title='Lost to float16, unscaled').savefig(picture)

    # Why, on one batch: how far each layer's gradients are from the ends of the format, and the
    # scale that each policy would have given them.
    batch = chainer.dataset.concat_examples(digits[:256])
    diagnosis = chainerlp.diagnose(model, model, *batch, formats=['float16'])
    print(f'\n{picture}')
    return diagnosis, rows


if __name__ == '__main__':
    main()
