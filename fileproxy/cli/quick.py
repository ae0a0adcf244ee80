"""Reads the command line of ``fileproxy get`` where it is plain, because ``get`` should begin at once.

Importing the library that reads all others takes longer than a small download. Whatever is not understood here, or is
wrong, is left to it: then there is help, or a sentence about the mistake. ``get.py`` stays what says which options
there are; a test compares.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from fileproxy.cli import Failed
from fileproxy.cli.getting import Options, WrongUsage, download

FLAGS = {
    "-c": "resume", "--continue": "resume", "--insecure": "insecure", "--restart": "restart", "-f": "force",
    "--force": "force", "--accept-unframed": "accept_unframed", "-q": "quiet", "--quiet": "quiet",
}  # fmt: skip
VALUES = {
    "-o": "output", "--output": "output", "-x": "connections", "--connections": "connections", "-i": "input_list",
    "--input": "input_list", "-j": "jobs", "--jobs": "jobs", "--checksum": "checksum", "--limit-rate": "limit_rate",
    "--timeout": "timeout", "-H": "header", "--header": "header", "--ca": "ca", "--mirrors-match": "mirrors_match",
}  # fmt: skip
NUMBERS = {"connections": range(1, 65), "jobs": range(1, 65)}


def parse(arguments: list[str]) -> Options | None:
    """The options of ``get``; None where the other reader should have a look."""
    found: dict[str, Any] = {"urls": []}
    waiting = list(reversed(arguments))
    while waiting:
        one = waiting.pop()
        name, mark, value = one.partition("=") if one.startswith("--") else (one, "", "")
        if name in VALUES and (mark or waiting):
            if not _put(found, VALUES[name], value if mark else waiting.pop()):
                return None
        elif name in FLAGS and not mark:
            found[FLAGS[name]] = True
        elif one.startswith("-"):
            return None
        else:
            found["urls"].append(one)
    return Options(**found)


def _put(found: dict[str, Any], key: str, value: str) -> bool:
    if key in NUMBERS:
        if not (value.isascii() and value.isdecimal() and len(value) < 4 and int(value) in NUMBERS[key]):
            return False
        found[key] = int(value)
    elif key == "header":
        found.setdefault(key, []).append(value)
    else:
        found[key] = value
    return True


def quick(arguments: list[str]) -> int | None:
    """Do what ``fileproxy get ARGUMENTS`` asks for; the exit code, or None when nothing was done."""
    options = parse(arguments)
    if options is None:
        return None
    try:
        return download(options)
    except WrongUsage:
        return None
    except Failed as error:
        sentence = str(error)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sentence = f"{where}{error.strerror or error}"
    print(f"fileproxy: {sentence}", file=sys.stderr)
    return 1
