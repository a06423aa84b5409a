"""Only an emulated device counts; what it counts is tested with the GPU's tests."""

from experiments.__main__ import main


def test_a_cpu_counts_nothing_and_the_error_is_one_line(tmp_path, capsys):
    assert main(['benchmark', '--counts', str(tmp_path / 'counts.md')]) == 2
    assert capsys.readouterr().err == (
        '--counts: given a device that counts nothing, allowed: an emulated one\n'
    )
    assert not list(tmp_path.iterdir())
