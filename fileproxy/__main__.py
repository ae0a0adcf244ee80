"""``python -m fileproxy`` and the ``fileproxy`` command."""

from fileproxy.cli.main import main

if __name__ == "__main__":
    main()
