"""The ``fileproxy`` command: one file for each family of commands, named in ``main.COMMANDS``.

* ``main.py``        finds the command, imports only its file, turns errors into one sentence and an exit code
* ``serve.py``       serve                     * ``origin.py``  origin
* ``lifecycle.py``   reload, stop, status      * ``check.py``   check
* ``client.py``      health, stats             * ``doctor.py``  doctor
* ``admin.py``       purge, warm               * ``bench.py``   bench; ``loading.py`` does bench load and stress
* ``get.py``         get; ``getting.py`` does it, ``quick.py`` reads its usual options without typer
* ``version.py``     version                   * ``completion.py``  completion

A command is a plain function with typer annotations. Its file imports what is heavy inside the function, so that
``--help`` stays quick. Exit codes: 0 done, 1 failed (raise :class:`Failed`), 2 wrong usage or configuration (raise
``ConfigurationError``).
"""


class Failed(Exception):
    """The command could not do its work. The text is one sentence for the person who typed it."""
