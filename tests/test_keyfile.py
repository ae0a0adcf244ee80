from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fileproxy.keyfile import made_once, store_key


def test_many_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda number: made_once(path, lambda: b"%d" % number), range(64)))
    assert len(set(got)) == 1
    assert path.read_bytes() == got[0]
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b" \n", b"x" * 5000])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(OSError, match="secret"):
        made_once(tmp_path / "key", lambda: b"new")
    assert (tmp_path / "key").read_bytes() == content


@pytest.mark.option("redis.secret")
def test_the_key_of_the_shared_store(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert store_key("a" * 500, one) == store_key("a" * 500, two) != store_key("b", one)
    assert not one.exists(), "a configured secret needs no file"
    made = store_key(None, one)
    assert len(made) == 32
    assert made == store_key(None, one) != store_key(None, two)
    assert (one / "store_key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("")
    assert store_key(None, tmp_path / "file") != store_key(None, tmp_path / "file"), "no file: this process's own"


def test_the_key_comes_from_the_first_folder_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    one = tmp_path / "one"
    assert store_key(None, tmp_path / "file", one) == store_key(None, one)
    assert store_key(None, one, tmp_path / "two") == store_key(None, one)
    assert not (tmp_path / "two").exists()
