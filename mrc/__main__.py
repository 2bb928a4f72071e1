"""``python -m mrc`` is the command ``mrc``."""

from mrc.cli.main import main

main()
