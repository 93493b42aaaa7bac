"""Verifying, merging and comparing stores."""

from __future__ import annotations

import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore, LabelStoreWriter
from tokenlabel.labels.average import average
from tokenlabel.labels.maintain import diff, merge, verify


def test_verify_finds_what_is_damaged(write_store) -> None:
    folder = write_store(count=10, shard_size=4)
    assert verify(LabelStore(folder)) == []
    shard = folder / "shard-00001.tll"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    damage = verify(LabelStore(folder))
    assert len(damage) == 2
    assert "shard-00001.tll: its checksum" in damage[0]
    assert "record 3 ('cat/0007.jpg') of shard-00001.tll is damaged" in damage[1]
    shard.unlink()
    assert "shard-00001.tll is missing" in verify(LabelStore(folder))[0]


def test_merged_stores_hold_all_labels(tmp_path, make_map) -> None:
    for name, numbers in (("a", (0, 1, 2)), ("b", (3, 4))):
        with LabelStoreWriter(tmp_path / name, num_classes=20) as writer:
            for number in numbers:
                writer.add(str(number), make_map(number))
    stores = [LabelStore(tmp_path / name) for name in "ab"]
    assert merge(stores, tmp_path / "c") == 5
    merged = LabelStore(tmp_path / "c")
    assert list(merged) == list("01234")
    for number in range(5):
        part = stores[number > 2]
        assert merged.payload(str(number)) == part.payload(str(number))
    with pytest.raises(InputError, match="both label '0'"):
        merge([stores[0], stores[0]], tmp_path / "d")


def test_stores_that_do_not_fit_are_not_merged(write_store) -> None:
    a, b = write_store("a"), write_store("b", codec="raw")
    with pytest.raises(InputError, match="differ in codec: compact and raw"):
        merge([LabelStore(a), LabelStore(b)], a.parent / "c")


def test_diff_measures_disagreement(tmp_path, make_map) -> None:
    for name, shift in (("a", 0), ("b", 100)):
        with LabelStoreWriter(tmp_path / name, num_classes=20, codec="exact") as writer:
            writer.add("same", make_map(0, k=20))
            writer.add("other", make_map(1 + shift, k=20))
            writer.add(name, make_map(2))
    found = diff(LabelStore(tmp_path / "a"), LabelStore(tmp_path / "b"))
    assert (found.only_first, found.only_second) == (1, 1)
    assert (found.compared, found.identical) == (2, 1)
    p, q = (make_map(seed, k=20) for seed in (1, 101))
    dense = [m.probabilities().gather(0, m.classes.argsort(0)) for m in (p, q)]
    expected = (dense[0] - dense[1]).abs().sum(0).mean() / 2 / 2
    assert found.total_variation == pytest.approx(float(expected), abs=2e-3)
    agreement = (1 + float((p.classes[0] == q.classes[0]).float().mean())) / 2
    assert found.top1_agreement == pytest.approx(agreement)
    torch.testing.assert_close(
        diff(LabelStore(tmp_path / "a"), LabelStore(tmp_path / "a")).total_variation, 0.0
    )


def test_a_merge_keeps_what_was_left_out_and_goes_on(tmp_path, make_map, monkeypatch) -> None:
    settings = {"dataset": {"decode": {"orientation": "apply"}, "samples": 3}}
    for name, numbers in (("a", (0, 1)), ("b", (3, 4))):
        with LabelStoreWriter(
            tmp_path / name,
            num_classes=20,
            shard_size=2,
            dataset=settings["dataset"] | {"fingerprint": name},
        ) as writer:
            writer.leave_out(f"broken-{name}", "unreadable")
            for number in numbers:
                writer.add(str(number), make_map(number))
    stores = [LabelStore(tmp_path / name) for name in "ab"]
    merge(stores, tmp_path / "c")
    whole = LabelStore(tmp_path / "c").manifest
    assert [left.key for left in whole.left_out] == ["broken-a", "broken-b"]
    assert whole.dataset["decode"] == {"orientation": "apply"}
    assert [d["fingerprint"] for d in whole.dataset["merged"]] == ["a", "b"]
    payload = LabelStore.payload
    monkeypatch.setattr(LabelStore, "payload", lambda s, k: payload(s, k) if k != "3" else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge(stores, tmp_path / "d")
    monkeypatch.setattr(LabelStore, "payload", lambda s, k: payload(s, k) if k != "0" else 1 / 0)
    merge(stores, tmp_path / "d")  # what is done is not done again
    assert LabelStore(tmp_path / "d").manifest == whole


def test_labels_of_turned_and_unturned_images_are_not_joined(tmp_path, make_map) -> None:
    def store(name: str, **decode: object) -> LabelStore:
        with LabelStoreWriter(
            tmp_path / name, num_classes=20, dataset={"decode": decode}
        ) as writer:
            writer.add(name, make_map(0))
        return LabelStore(tmp_path / name)

    turned, plain = store("a", orientation="apply"), store("b")
    for join in (merge, average):
        with pytest.raises(InputError, match="differ in orientation: apply and ignore"):
            join([turned, plain], tmp_path / "joined")
    other = store("c", orientation="apply", integers=[0, 4095])
    merge([turned, other], tmp_path / "joined")  # what they share is kept where others differ
    assert LabelStore(tmp_path / "joined").manifest.orientation == "apply"
