"""A trainer as it will be after its next update, for asking a trigger before the update."""


class TrainerAhead:
    """Stands for a trainer one iteration on; everything else is the trainer's.

    Args:
        trainer (~chainer.training.Trainer): The trainer.
        in_update (bool): Whether the update has begun: the iterator has been asked for the batch,
            and only the iteration is not counted yet.
    """

    def __init__(self, trainer, in_update=False):
        self._trainer = trainer
        self.updater = _UpdaterAhead(trainer.updater, in_update)

    def __getattr__(self, name):
        return getattr(self._trainer, name)


class _UpdaterAhead:
    def __init__(self, updater, in_update):
        self._updater = updater
        self.iteration = updater.iteration + 1
        if hasattr(updater, 'epoch_detail') and not in_update:
            self.previous_epoch_detail = updater.epoch_detail
            self.epoch_detail = updater.epoch_detail + _epoch_step(updater)
            self.epoch = int(self.epoch_detail)
            self.is_new_epoch = self.epoch > int(self.previous_epoch_detail)

    def __getattr__(self, name):
        return getattr(self._updater, name)


def _epoch_step(updater):
    try:
        iterator = updater.get_iterator('main')
        # A little more than a batch: the last one of an epoch has to reach it in spite of rounding.
        return iterator.batch_size / len(iterator.dataset) + 1e-9
    except (AttributeError, TypeError):
        return updater.epoch_detail - (updater.previous_epoch_detail or 0.0)
