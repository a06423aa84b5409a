"""SSD, the single shot multibox detector, for images of 300x300 or 512x512.

Liu et al. 2016 (arXiv 1512.02325), as in the authors' released models.
"""

from chainerlp.links import Cast
from experiments.data.transforms import VGG_MEAN
from experiments.models.ssd_boxes import GRIDS_300, GRIDS_512, default_boxes
from experiments.models.vgg import VGG16Trunk, scale_channels

import chainer
import numpy
from chainer import functions, links

_MEAN = numpy.array(VGG_MEAN, numpy.float32)[:, None, None]
# For a training from scratch: about a pixel's standard deviation, and exact to divide by.
PIXEL_SCALE = 64.0
# Added under the root of Normalize, so that the gradient is finite where all channels are 0.
_EPS = 1e-10
# On top of the trunk conv6_1 and conv6_2, conv7_1 and conv7_2, ...: output channels of the first, a
# 1x1 convolution; output channels, kernel, stride and padding of the second.
_EXTRA_LAYERS = {
    300: ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 1, 0), (128, 256, 3, 1, 0)),
    512: ((256, 512, 3, 2, 1), *[(128, 256, 3, 2, 1)] * 3, (128, 256, 4, 1, 1)),
}
_GRIDS = {300: GRIDS_300, 512: GRIDS_512}


class Normalize(chainer.Chain):
    """Divides by the L2 norm over the channels and multiplies by a learned scale a channel.

    Liu et al., ParseNet (arXiv 1506.04579), section 3.3; SSD has it on conv4_3, whose values are
    much larger than those of the other feature maps. It is computed in float32: the sum of 512
    squares overflows float16 from a root mean square of 11 on.
    """

    def __init__(self, channels, scaled_cast=False):
        super().__init__()
        with self.init_scope():
            self.cast = Cast() if scaled_cast else None
            # float32 in mixed16, like the scale of a batch normalization.
            dtype = chainer.get_dtype(map_mixed16=numpy.float32)
            self.scale = chainer.Parameter(chainer.initializers.Constant(20.0, dtype), channels)

    def forward(self, x):
        """Normalizes a batch of feature maps (n, channels, h, w); the output has x's dtype."""
        h = functions.cast(x, 'float32') if self.cast is None else self.cast(x)
        squares = functions.sum(h * h, axis=1, keepdims=True)
        norm = functions.sqrt(squares + _EPS)
        h = h / functions.broadcast_to(norm, h.shape)
        h = functions.scale(h, functions.cast(self.scale, 'float32'), axis=1)
        return functions.cast(h, x.dtype)


class SSD(chainer.Chain):
    """VGG-16, further and smaller feature maps, and on each of them two 3x3 convolutions.

    These say for every default box how to move it (``loc1``, ``loc2``, ...) and what is in it
    (``conf1``, ``conf2``, ...). Weights of the new layers are uniform with a variance of 1 / fan-in
    (LeCun; Caffe's "xavier", which the authors take), biases 0.

    Args:
        classes (int): Number of classes, without the background.
        size (int): Height and width of the images, 300 or 512.
        width (float): Factor on all numbers of channels but those of ``loc`` and ``conf``.
        pixel_scale (float): What images, less their mean, are divided by: 1, as VGG-16's weights
            expect it, or :data:`PIXEL_SCALE`.

    Attributes:
        default_boxes (numpy.ndarray): (boxes, 4), each (y, x, h, w): 8,732 or 24,564 boxes.

    Raises:
        ValueError: If there is no SSD for this size.
    """

    def __init__(self, classes, size=300, width=1.0, pixel_scale=1.0, scaled_cast=False):
        super().__init__()
        if size not in _GRIDS:
            raise ValueError(f'SSD: given size {size}, must be one of {list(_GRIDS)}')
        self.size = size
        self.classes = classes
        self._pixel_scale = float(pixel_scale)
        self.default_boxes = default_boxes(_GRIDS[size])
        initial = {'initialW': chainer.initializers.LeCunUniform()}
        with self.init_scope():
            self.trunk = VGG16Trunk(width)
            channels = [self.trunk.conv4_3.out_channels, self.trunk.fc7.out_channels]
            self.normalize = Normalize(channels[0], scaled_cast)
            self._extras = []
            for number, (between, out, *shape) in enumerate(_EXTRA_LAYERS[size], 6):
                first, second = f'conv{number}_1', f'conv{number}_2'
                between, out = scale_channels(between, width), scale_channels(out, width)
                setattr(self, first, links.Convolution2D(channels[-1], between, 1, **initial))
                setattr(self, second, links.Convolution2D(between, out, *shape, **initial))
                channels.append(out)
                self._extras += [(first, second)]
            for number, (grid, of_map) in enumerate(zip(_GRIDS[size], channels), 1):
                for name, values in (('loc', 4), ('conf', classes + 1)):
                    out = grid.boxes_per_cell * values
                    head = links.Convolution2D(of_map, out, 3, pad=1, **initial)
                    setattr(self, f'{name}{number}', head)
                    cast = Cast(lognormal=name == 'conf') if scaled_cast else None
                    setattr(self, f'{name}{number}_cast', cast)

    def forward(self, images):
        """Returns where the objects of a batch of images are, and what they are.

        Args:
            images (:ref:`ndarray`): (n, 3, size, size): red, green and blue, each 0 to 255. In
                float32 whatever the network computes in; the mean is subtracted here.

        Returns:
            tuple of ~chainer.Variable: (n, boxes, 4), encoded as
            :func:`~experiments.models.ssd_boxes.encode` does, and (n, boxes, classes + 1), the
            logits, the background first; in the network's dtype, or in float32 if casts are scaled.

        Raises:
            ValueError: If the images have another size.
        """
        if images.shape[1:] != (3, self.size, self.size):
            expected = (3, self.size, self.size)
            raise ValueError(f'SSD: given images of {images.shape[1:]}, must be {expected}')
        locs, confs = [], []
        for number, h in enumerate(self._feature_maps(images), 1):
            locs.append(_by_box(self._head(f'loc{number}', h), 4))
            confs.append(_by_box(self._head(f'conf{number}', h), self.classes + 1))
        return functions.concat(locs), functions.concat(confs)

    def _head(self, name, h):
        h, cast = self[name](h), getattr(self, f'{name}_cast')
        return h if cast is None else cast(h)

    def _feature_maps(self, images):
        x = functions.cast(chainer.as_variable(images), 'float32') - self.xp.asarray(_MEAN)
        x = functions.cast(x / self._pixel_scale, self.trunk.conv1_1.W.dtype)
        conv4_3, h = self.trunk(x)
        yield self.normalize(conv4_3)
        yield h
        for first, second in self._extras:
            h = functions.relu(self[first](h))
            h = functions.relu(self[second](h))
            yield h


def _by_box(h, values):
    """From (n, boxes_per_cell * values, h, w) to (n, boxes, values), cells row by row."""
    h = functions.transpose(h, (0, 2, 3, 1))
    return functions.reshape(h, (len(h), -1, values))
