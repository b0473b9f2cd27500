"""Which folder may import which: the contracts in pyproject.toml, held here too, so that `make test` shows a broken one."""

from pathlib import Path

from importlinter import configuration
from importlinter.application import use_cases


def test_every_room_imports_only_what_it_may(capsys):
    configuration.configure()
    kept = use_cases.lint_imports(str(Path(__file__).parents[1] / "pyproject.toml"), cache_dir=None, no_logo=True)
    assert kept, capsys.readouterr().out
