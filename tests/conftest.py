"""Options of the test run."""


def pytest_addoption(parser):
    parser.addoption(
        '--strict-mpi', action='store_true', help='fail instead of skip where there is no MPI'
    )
