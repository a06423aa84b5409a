"""What MPI tells a process about itself, before anything of MPI is imported."""

import os

# What OpenMPI, MPICH and MVAPICH tell each process about how many there are, and which it is.
_SIZES = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MV2_COMM_WORLD_SIZE')
_RANKS = ('OMPI_COMM_WORLD_RANK', 'PMI_RANK', 'MV2_COMM_WORLD_RANK')


def is_alone():
    """Returns whether this process was started without others."""
    return all(int(os.environ.get(size, 1)) < 2 for size in _SIZES)


def is_first():
    """Returns whether this process is the first of those that were started together."""
    return is_alone() or all(int(os.environ.get(rank, 0)) == 0 for rank in _RANKS)
