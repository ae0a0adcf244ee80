"""``python -m fileproxy`` and the ``fileproxy`` command."""

import os
import sys


def main() -> None:
    """Entry point of the ``fileproxy`` command. ``get`` begins without the library that reads other commands."""
    if sys.argv[1:2] == ["get"] and len(sys.argv) > 2:
        from fileproxy.cli.quick import quick  # noqa: PLC0415 - other commands do not need it

        if (code := quick(sys.argv[2:])) is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # all is written and closed; taking the interpreter down would take longer than a small file
    from fileproxy.cli import main as others  # noqa: PLC0415 - typer

    others.main()


if __name__ == "__main__":
    main()
