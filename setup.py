"""What chainerlp needs, and what is in it; what it is stands in pyproject.toml.

Chainer has to be installed first: README.md, "Install", says how.

A range begins with the oldest version that the tests were run with, and ends before the next major
one. The newest that they were run with: NumPy 2.5.5, CuPy 14.2.0, mpi4py 4.1.2, pydantic 2.14.3,
PyYAML 6.0.3, tqdm 4.70.1, scikit-learn 1.9.1, matplotlib 3.11.2, pillow 13.0.0, pytest 9.2.0,
threadpoolctl 3.8.0, markdown 3.11.3, hypothesis 6.170.15, ml_dtypes 0.6.0, scipy 1.18.1,
h5py 3.16.0, Sphinx 9.0.4, myst-parser 5.2.0, furo 2025.12.19. (CuPy's ends without a GPU, and
mpi4py's with two ranks: imported with Chainer.)
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=['chainerlp', 'chainerlp.*', 'experiments', 'experiments.*']),
    package_data={'chainerlp': ['py.typed']},
    entry_points={'console_scripts': ['chainerlp-experiments = experiments.__main__:main']},
    install_requires=[
        'chainer==7.8.1',
        'numpy>=1.26.4,<3',
    ],
    extras_require={
        'cuda12x': ['cupy-cuda12x>=13.6,<15'],
        'cuda13x': ['cupy-cuda13x>=14.2,<15'],
        'mpi': ['mpi4py>=4.1,<5'],
        'plot': ['matplotlib>=3.9,<4'],
        'experiments': [
            'pydantic>=2.11,<3',
            'PyYAML>=6.0.1,<7',
            'tqdm>=4.66,<5',
            'scikit-learn>=1.4,<2',
            'matplotlib>=3.9,<4',
            'pillow>=10.4,<14',
            'threadpoolctl>=3.5,<4',
            'markdown>=3.6,<4',
            'scipy>=1.13,<2',
        ],
        # Sphinx 9 needs Python 3.11.
        'docs': ['sphinx>=9.0,<10', 'myst-parser>=5.2,<6', 'furo>=2025.12.19'],
        'test': [
            'pytest>=8.2,<10',
            'hypothesis>=6.100,<7',
            'ml_dtypes>=0.4,<1',
            'h5py>=3.11,<4',
            'scipy>=1.13,<2',
            'build>=1.2,<2',
            # One version of each: a rule that a later one adds must not fail the tests.
            'mypy==1.19.1; python_version < "3.10"',
            'mypy==2.4.1; python_version >= "3.10"',
            'ruff==0.17.6',
        ],
    },
)
