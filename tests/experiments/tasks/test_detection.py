from experiments.tasks.detection import TrainChain

import chainer
import numpy


class Fixed(chainer.Chain):
    def forward(self, images):
        return self.locs, self.confs


def test_it_reports_the_loss_and_its_two_parts():
    # One positive, off by 1 in one coordinate: 1/2. All logits 0: log 2 for it and three others.
    model = Fixed()
    model.locs = chainer.Variable(numpy.array([[[1, 0, 0, 0]] + [[0] * 4] * 9], numpy.float32))
    model.confs = chainer.Variable(numpy.zeros((1, 10, 2), numpy.float32))
    chain = TrainChain(model)
    reporter = chainer.Reporter()
    reporter.add_observer('main', chain)
    observation = {}
    targets = numpy.array([[1] + [0] * 9], numpy.int32)
    with reporter.scope(observation):
        loss = chain(None, numpy.zeros((1, 10, 4), numpy.float32), targets)
    values = {key: float(value.array) for key, value in observation.items()}
    assert set(values) == {'main/loss', 'main/loss/loc', 'main/loss/conf'}
    assert values['main/loss/loc'] == 0.5
    numpy.testing.assert_allclose(values['main/loss/conf'], 4 * numpy.log(2), rtol=1e-6)
    assert (
        values['main/loss']
        == float(loss.array)
        == values['main/loss/loc'] + numpy.float32(values['main/loss/conf'])
    )
