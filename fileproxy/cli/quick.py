"""Reads the command line of ``fileproxy get`` where it is plain, because ``get`` should begin at once.

Importing the library that reads all others takes longer than a small download. Whatever is not understood here, or is
wrong, is left to it: then there is help, or a sentence about the mistake. ``get.py`` stays what says which options
there are; a test compares.
"""

from __future__ import annotations

import gc
import os
import sys

from fileproxy.cli import Failed
from fileproxy.client.early import Early, read_url

TYPE_CHECKING = False  # without ``typing``, for the same reason
if TYPE_CHECKING:
    from typing import Any

    from fileproxy.cli.getting import Options

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
# With other options the first request could be another one, or there could be none.
SWITCH_S = 0.0005  # how long importing keeps the interpreter while bytes wait for it (Python: 0.005)
EARLY = {"urls", "output", "connections", "checksum", "resume", "restart", "force", "accept_unframed", "quiet"}
HEX_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}


def parse(arguments: list[str]) -> Options | None:
    """The options of ``get``; None where the other reader should have a look."""
    from fileproxy.cli.getting import Options

    found = read(arguments)
    return None if found is None else Options(**found)


def read(arguments: list[str]) -> dict[str, Any] | None:
    """The same by name, without defaults."""
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
    return found


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


def begin(found: dict[str, Any]) -> Early | None:
    """Send the first request now, where it is plain what it will be and nothing will keep it from being made."""
    urls = [read_url(url) for url in found["urls"]]
    checksum = found.get("checksum")
    if sys.platform != "linux" or not urls or None in urls or not EARLY.issuperset(found):
        return None
    if checksum is not None and not _is_checksum(checksum):
        return None
    first = urls[0]
    assert first is not None
    output = found.get("output") or ""
    if output == "-":
        return None
    if not output or output.endswith("/") or os.path.isdir(output):
        output = os.path.join(output, first[3].partition("?")[0].rpartition("/")[2])
    if os.path.exists(output + ".part") or (os.path.exists(output) and "force" not in found):
        return None
    sys.setswitchinterval(SWITCH_S)
    return Early(*first, alone=len(urls) == 1 and found.get("connections", 1) == 1)


def _is_checksum(text: str) -> bool:
    name, _, digits = text.partition("=")
    return len(digits) == HEX_DIGITS.get(name) and set("0123456789abcdef").issuperset(digits)


def quick(arguments: list[str]) -> int | None:
    """Do what ``fileproxy get ARGUMENTS`` asks for; the exit code, or None when nothing was done."""
    found = read(arguments)
    if found is None:
        return None
    early = begin(found)
    # What takes time to import comes now, while the first answer is on its way. Nothing of it is garbage.
    gc.disable()
    from fileproxy.cli.getting import Options, WrongUsage, download
    from fileproxy.client import api as _api  # noqa: F401
    from fileproxy.client import progress as _progress  # noqa: F401

    gc.enable()

    try:
        return download(Options(**found), early)
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
    finally:
        if early is not None:
            early.drop()
    print(f"fileproxy: {sentence}", file=sys.stderr)
    return 1
