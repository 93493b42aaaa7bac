"""Whether pretrained weights can be had is known in seconds, and without a download."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from tokenlabel.models import reach
from tokenlabel.models.reach import out_of_reach

HUB_MODEL = "vit_small_patch16_224.augreg_in21k_ft_in1k"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lvvit_s", "timm has none"),
        ("no_such_model", "timm does not know it"),
        ("my.module:build", "timm does not know it"),
        (HUB_MODEL, "HF_HUB_OFFLINE is set"),
        ("hf-hub:some/one", "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_cannot_be_had_says_why(name: str, reason: str) -> None:
    assert reason in (out_of_reach(name) or "")


def test_a_folder_holds_its_own(tmp_path: Path) -> None:
    assert out_of_reach(str(tmp_path)) is None
    assert out_of_reach(f"local-dir:{tmp_path}") is None


def test_weights_that_were_downloaded_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "try_to_load_from_cache", lambda *_, **__: "/somewhere/weights")
    assert out_of_reach(HUB_MODEL) is None


def test_a_server_is_asked_directly_or_by_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def connect(place: tuple[str, int], timeout: float) -> SimpleNamespace:
        asked.append(place)
        assert timeout < 10
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(reach, "getproxies", dict)
    assert out_of_reach(HUB_MODEL) is None
    monkeypatch.setattr(reach, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    assert out_of_reach(HUB_MODEL) is None
    assert asked == [("huggingface.co", 443), ("proxy.example", 3128)]


def test_no_network_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", connect)
    begun = time.monotonic()
    assert out_of_reach(HUB_MODEL) == "no connection to huggingface.co"
    assert time.monotonic() - begun < 1
