"""Models as timm folders: weights and configuration that plain timm loads, or its hub."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import DECODE, MULTI_LABEL, RULE, Classifier
from tokenlabel.evaluation.load import TOKEN_HEAD_FILE, TOKENS_TAUGHT
from tokenlabel.files import claim_folder, replacing_folder, short_of_space, write_tensors

__all__ = ["export_timm"]


def export_timm(
    classifier: Classifier,
    folder: Path,
    readme: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `model.safetensors` and `config.json`, which need timm and nothing of this package.

    A student of a plain timm model keeps its token head, of which timm knows nothing, in a file of
    its own beside them; `tokenlabel` finds it there. A token head that the backbone owns and adds to
    its answer (LV-ViT, VOLO) is written as zeros where nothing taught it. `dtype` is what the weights
    are stored in; they are loaded as float32 again. Raises InputError where the folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already: name another folder")
    claim_folder(folder.parent, overwrite=True)
    size = sum(t.numel() * t.element_size() for t in classifier.model.state_dict().values())
    if (fault := short_of_space(folder, size)) is not None:  # timm's writer does not say it
        raise InputError(fault)
    rules = classifier.decode_rules
    with replacing_folder(folder) as draft:
        save_for_hf(
            _answering(classifier),
            str(draft),
            model_config={
                "label_names": list(classifier.class_names),
                TOKENS_TAUGHT: classifier.has_tokens,
                **({MULTI_LABEL: True} if classifier.multi_label else {}),
                **({RULE: classifier.rule} if len(classifier.rules) > 1 else {}),
                **({} if rules.usual else {DECODE: rules.as_dict()}),
            },
            data_config=classifier.preprocessing.for_timm(),
            safe_serialization=True,
        )
        head = classifier.model.aux_head
        if head is not None and classifier.has_tokens:
            write_tensors(draft / TOKEN_HEAD_FILE, head.state_dict())
        if dtype != torch.float32:
            for file in draft.glob("*.safetensors"):
                stored = load_file(file)
                write_tensors(file, {name: _stored(t, dtype) for name, t in stored.items()})
        if readme is not None:
            (draft / "README.md").write_text(readme, encoding="utf-8")


def _answering(classifier: Classifier) -> nn.Module:
    """The backbone as plain timm should call it."""
    backbone: nn.Module = classifier.model.backbone
    own = getattr(backbone, "aux_head", None)
    if own is None or (classifier.has_tokens and classifier.model.aux_head is None):
        return backbone
    backbone = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in backbone.get_submodule("aux_head").parameters():
            parameter.zero_()
    return backbone


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
