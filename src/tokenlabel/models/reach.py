"""Whether pretrained weights can be had: from the disk, or over a network that answers."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import get_pretrained_cfg

__all__ = ["out_of_reach"]

_SECONDS = 3.0  # until a host that does not answer is given up
_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them


def out_of_reach(name: str) -> str | None:
    """Why timm's pretrained weights of a model are not available; None where they are.

    `name` is a timm model, a folder, or `hf-hub:owner/name`. Nothing is downloaded, and a network that
    does not answer costs seconds, where a download would try again for a minute.
    """
    kind, _, place = name.partition(":")
    if Path(name).is_dir() or kind == "local-dir":
        return None
    if place and kind in ("hf-hub", "hf_hub"):
        return _of_hub(place)
    if not timm.is_model(name):
        return "timm does not know it"
    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return "timm has none"
    if config.file:
        return None
    return _of_hub(config.hf_hub_id) if config.hf_hub_id else _of_url(str(config.url))


def _of_hub(repository: str) -> str | None:
    repository, _, revision = repository.partition("@")
    for file in _FILES:
        if isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str):
            return None
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and they were never downloaded"
    return _no_answer(constants.ENDPOINT)


def _of_url(url: str) -> str | None:
    known = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return None if known.is_file() else _no_answer(url)


def _no_answer(url: str) -> str | None:
    """Why a server, or the proxy before it, cannot be reached."""
    scheme = urlsplit(url).scheme
    place = urlsplit(getproxies().get(scheme, url))
    host, port = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=_SECONDS).close()
    except OSError:
        return f"no connection to {host}"
    return None
