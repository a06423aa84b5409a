"""How runs are started: what all runs of a command have in common."""

import dataclasses
from typing import Optional

from experiments.runner.stopping import Stop


@dataclasses.dataclass(frozen=True)
class Launch:
    """How runs are started.

    Attributes:
        device (~chainer.backend.Device): Where they run.
        communicator (~chainermn.CommunicatorBase): Of the workers; ``None`` if there is one.
        fresh (bool): Whether they start over, whatever an earlier one left.
        stop (~experiments.runner.stopping.Stop): Is asked whether to stop.
        command (str): The command, to be written down.
    """

    device: object
    communicator: Optional[object] = None
    fresh: bool = False
    stop: Stop = dataclasses.field(default_factory=Stop)
    command: str = ''
