"""The index finds every key, also where hashes collide."""

from __future__ import annotations

import hashlib

import pytest

from tokenlabel.errors import InputError
from tokenlabel.labels import index
from tokenlabel.labels.index import Index, Keys, encode_index


@pytest.mark.parametrize("collide", [False, True])
def test_every_key_is_found_and_no_other(tmp_path, monkeypatch, collide) -> None:
    if collide:
        monkeypatch.setattr(index.zlib, "crc32", lambda key: key[-1] % 3)
    keys = [f"{n % 7}/é{n}.jpg" for n in range(500)]
    content = encode_index(keys, [n * 11 for n in range(500)])
    (tmp_path / "i").write_bytes(content)
    found = Index(tmp_path / "i", hashlib.sha256(content).hexdigest())
    assert [found.find(key) for key in keys] == list(range(500))
    assert found.offsets.tolist() == [n * 11 for n in range(500)]
    assert all(found.find(key + "x") == -1 for key in keys)
    assert list(Keys(found)) == keys
    assert Keys(found)[-1] == keys[-1]
    assert keys[3] in Keys(found)


def test_a_key_comes_once() -> None:
    with pytest.raises(InputError, match="'b' comes twice"):
        encode_index(["a", "b", "c", "b"], [0, 1, 2, 3])
