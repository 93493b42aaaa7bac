"""Visual words: labels from any vision network, which needs no classes.

The network's patch features fall into V groups; a patch's label is how near it is to the best of them.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tokenlabel.annotators.spec import File, Network, timm_network
from tokenlabel.choices import ModelArguments
from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tokenlabel.annotators.word_model import WordAnnotator
    from tokenlabel.data.inputs import Preprocessing

__all__ = ["WordsSpec"]

_WORDS = 2048
_PATCHES_A_WORD = 64


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WordsSpec:
    """Label images with visual words: clusters of the features of any vision model."""

    kind: ClassVar[str] = "words"

    model: str
    """A timm model with or without a head, hf-hub:owner/name, a folder, module:function, or the folder
    of a training run."""
    words: Count | None = None
    """Size of the vocabulary, which is learned once from these images: 512 to 8192 (default: 2048)."""
    vocabulary: str | None = None
    """Use the words of this label store instead; it must be made with the same model."""
    patches: Count | None = None
    """Number of patches to learn the words from (default: 64 per word)."""
    perplexity: Annotated[float, Field(ge=1)] = 4.0
    """Average perplexity of a patch over the words; it sets the softmax temperature."""
    seed: int = 0
    """Random seed of the patches and of k-means."""
    checkpoint: File | None = None
    """Weights file, instead of the pretrained weights."""
    pretrained: bool = True
    """Load pretrained weights."""
    model_kwargs: ModelArguments = field(default_factory=dict)
    """Further arguments of the model, as name value pairs; lists as [64,128]."""
    network: Network = field(default_factory=Network)

    def build(
        self,
        class_names: Sequence[str],  # noqa: ARG002
        device: torch.device | None = None,
    ) -> WordAnnotator:
        from tokenlabel.annotators.classifier import fitted_inputs
        from tokenlabel.annotators.features import PatchFeatures
        from tokenlabel.annotators.image_model import weights_hash
        from tokenlabel.annotators.word_model import Learning, WordAnnotator
        from tokenlabel.labels import LabelStore
        from tokenlabel.models.weights import head_names

        words = self.words or _WORDS
        if self.patches is not None and self.patches < words and self.vocabulary is None:
            raise InputError(
                f"{words:,} words cannot be learned from {self.patches:,} patches: give more --patches"
                f" (default: {_PATCHES_A_WORD} per word), or fewer --words"
            )
        network, name, own, notes = self._network()
        # of the weights as they come: another input size resamples some of them. No head makes
        # features, and where the weights have none its values are random
        features_hash = weights_hash(network, without=head_names(network))
        accepted = [features_hash]
        if self.vocabulary is not None:
            accepted.append(weights_hash(network))  # what vocabularies were once known by
        origin = {"kind": "visual words", "model": name, "weights_sha256": features_hash}
        inputs = fitted_inputs(network, self.network, own)
        features = PatchFeatures(network)
        vocabulary = None
        if self.vocabulary is not None:
            vocabulary = LabelStore(self.vocabulary).vocabulary
            if vocabulary is None:
                raise InputError(
                    f"{self.vocabulary} holds labels of classes: name a store made with --words"
                )
            if vocabulary.made.get("weights_sha256") not in accepted:
                raise InputError(
                    f"the words of {self.vocabulary} are those of another model or other weights"
                    f" ({vocabulary.made.get('model')}): annotate with that one, or learn words of"
                    " this one with --words"
                )
            if self.words not in (None, len(vocabulary)):
                raise InputError(
                    f"{self.vocabulary} has {len(vocabulary)} words, not {self.words}: leave --words out"
                )
            words = len(vocabulary)
        if self.perplexity >= words:
            raise InputError(
                f"--perplexity {self.perplexity:g} must be below the number of words ({words})"
            )
        return WordAnnotator(
            features,
            inputs,
            vocabulary,
            Learning(
                words=words,
                patches=self.patches or _PATCHES_A_WORD * words,
                perplexity=self.perplexity,
                seed=self.seed,
            ),
            origin=origin,
            notes=notes,
            **self.network.running(device),
        )

    def _network(self) -> tuple[Any, str, Preprocessing | None, tuple[str, ...]]:
        """The network, its name, what it is shown, where timm does not know, and notes on it."""
        from tokenlabel.evaluation.load import load_classifier
        from tokenlabel.runs.folds import holds_folds, member_folder

        folder = Path(self.model)
        if self.checkpoint is None and holds_folds(folder):
            raise InputError(
                f"{folder} holds the networks of several folds, and words are those of one: give"
                f" --model {member_folder(folder, 0)}"
            )
        of_timm = (folder / "config.json").is_file()  # perhaps without classes
        if folder.is_dir() and not of_timm and self.checkpoint is None:
            student = load_classifier(folder)
            return student.model.backbone, student.facts["model"], student.preprocessing, ()
        network, notes = timm_network(
            self.model, self.model_kwargs, pretrained=self.pretrained, checkpoint=self.checkpoint
        )
        config = getattr(network, "pretrained_cfg", None) or {}
        name = config.get("architecture") or self.model
        return network, name, _clip_inputs(network), notes


def _clip_inputs(network: Any) -> Preprocessing | None:
    """What the image tower of an open_clip model is shown; None of other models."""
    from tokenlabel.annotators.patch_text import tower_inputs

    visual = getattr(network, "visual", None)
    return None if getattr(visual, "preprocess_cfg", None) is None else tower_inputs(visual)
