"""`WordAnnotator`: label maps of visual words, and the vocabulary that they are words of."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from tokenlabel.annotators.features import PatchFeatures
from tokenlabel.annotators.image_model import ImageAnnotator, Item, Running
from tokenlabel.annotators.kmeans import spherical_kmeans
from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.reading import StorageError
from tokenlabel.data.source import ImageSource, source_fingerprint
from tokenlabel.errors import InputError
from tokenlabel.labels.manifest import Manifest
from tokenlabel.labels.vocabulary import FILE_NAME, Vocabulary
from tokenlabel.models.arithmetic import autocast
from tokenlabel.progress import first_process, progress_bar

__all__ = ["Learning", "WordAnnotator", "store_vocabulary"]

_CELLS_AN_IMAGE = 32  # that are looked at, where there are enough images
_FEWEST_IMAGES = 256
_AT_ONCE = 32  # images; nothing is known yet of how many would fit
_TEMPERED = 4096  # patches whose perplexity the temperature is found by


@dataclass(frozen=True)
class Learning:
    """How words are learned."""

    words: int
    patches: int  # to learn from
    perplexity: float  # mean number of words that a patch is like
    seed: int


class WordScores(nn.Module):
    """Images [B, 3, H, W] to logits [B, h, w, V] of the words."""

    def __init__(self, features: PatchFeatures) -> None:
        super().__init__()
        self.features = features
        self.vocabulary: Vocabulary | None = None

    def forward(self, images: Tensor) -> Tensor:
        assert self.vocabulary is not None
        features = self.features(images)
        # in half precision cosines would be off by more than the temperature forgives
        with torch.autocast(features.device.type, enabled=False):
            return self.vocabulary.scores(features)


class WordAnnotator(ImageAnnotator):
    """Labels cells with visual words. Without a `vocabulary` it must `learn` one first."""

    def __init__(
        self,
        features: PatchFeatures,
        preprocessing: Preprocessing,
        vocabulary: Vocabulary | None,
        learning: Learning,
        *,
        origin: dict[str, Any],
        notes: Sequence[str] = (),
        **running: Unpack[Running],
    ) -> None:
        self._words = WordScores(features)
        learned = {"words": learning.words} if vocabulary else asdict(learning)
        super().__init__(
            self._words,
            learning.words,
            preprocessing,
            origin=origin | learned,
            notes=notes,
            **running,
        )
        self._network = features
        side = self.views.window
        h, w, self._width = features.shape((side, side) if side else preprocessing.image_size)
        self._cells = h * w
        self.learning, self.vocabulary = learning, vocabulary
        if vocabulary is not None:
            self.use(vocabulary)

    def use(self, vocabulary: Vocabulary) -> None:
        """Label with these words."""
        self.vocabulary = vocabulary
        self._words.vocabulary = dataclasses.replace(
            vocabulary,
            centers=vocabulary.centers.to(self.device),
            mean=vocabulary.mean.to(self.device),
        )

    def made(self, source: ImageSource) -> dict[str, Any]:
        """What `learn` writes down before it begins: equal for equal words."""
        facts = self.description | {"images_fingerprint": source_fingerprint(source)}
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain

    @torch.no_grad()  # not inference mode: a training step may use the words
    def learn(self, source: ImageSource) -> Vocabulary:
        """Words of a sample of the patches of `source`.

        Raises InputError where it has fewer patches than there are to be words.
        """
        learning = self.learning
        rows = self._sampled(source)
        if len(rows) < learning.words:
            raise InputError(
                f"{learning.words:,} words cannot be learned from {len(rows):,} patches: annotate more"
                f" images, or fewer words (--words {max(len(rows) // 64, 1)})"
            )
        mean = rows.mean(0)
        rows -= mean  # in place, as the next: there may be gigabytes of them
        rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=1e-12)
        centers = spherical_kmeans(rows, learning.words, learning.seed)
        if centers is None:
            raise InputError(
                f"the {len(rows):,} patches are too much alike for {learning.words:,} words:"
                " use fewer --words, or other images"
            )
        spread = rows[:: max(len(rows) // _TEMPERED, 1)]
        temperature = _temperature(spread @ centers.T, learning.perplexity)
        made = self.made(source) | {"patches_seen": len(rows)}
        return Vocabulary(centers.cpu(), mean.cpu(), temperature, made)

    def _sampled(self, source: ImageSource) -> Tensor:
        """Features [N, D] of patches of images that are drawn from all of the source."""
        learning = self.learning
        random = torch.Generator().manual_seed(learning.seed)
        an_image = min(_CELLS_AN_IMAGE, self._cells)
        wanted = max(math.ceil(learning.patches / an_image), _FEWEST_IMAGES)
        drawn = torch.randperm(len(source), generator=random)[:wanted].sort().values.tolist()
        cells = math.ceil(learning.patches / max(len(drawn), 1))
        rows = torch.empty(len(drawn) * cells, self._width, device=self.device)
        found = 0
        threads = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
        with threads, progress_bar(visible=first_process()) as progress:
            task = progress.add_task("learn words", total=len(drawn), note="")
            for start in range(0, len(drawn), _AT_ONCE):
                batch = drawn[start : start + _AT_ONCE]
                for features in self._features([*threads.map(partial(self._item, source), batch)]):
                    chosen = torch.randperm(len(features), generator=random)[:cells]
                    rows[found : found + len(chosen)] = features[chosen.to(features.device)]
                    found += len(chosen)
                progress.advance(task, len(batch))
        if not found:
            raise InputError("no image could be read: there is nothing to learn words from")
        return rows[:found]

    def _item(self, source: ImageSource, index: int) -> Item | None:
        """An image as the network takes it; None where it cannot be read."""
        key = source.keys[index]
        try:
            return self.prepare(key, decode_image(source.read(index), key, source.rules))
        except StorageError:
            raise  # nothing is wrong with the image
        except InputError:
            return None

    def _features(self, items: Sequence[Item | None]) -> list[Tensor]:
        """Features [cells, D] of each image that could be read; of one window of it."""
        found: dict[int, Tensor] = {}
        read = {place: item[0] for place, item in enumerate(items) if item is not None}
        side = self.views.window
        for shape in sorted({image.shape for image in read.values()}):
            places = [place for place, image in read.items() if image.shape == shape]
            x = self._normalize(torch.stack([read[place] for place in places]).to(self.device))
            if side:
                x = x[:, :, :side, :side]
            with autocast(self.device, self.dtype):
                features = self._words.features(x).float().flatten(1, 2)
            found.update(zip(places, features, strict=True))
        return [found[place] for place in sorted(found)]


def _temperature(cosines: Tensor, perplexity: float) -> float:
    """The one whose softmax of cosines [N, V] has this perplexity: exp of the mean entropy."""
    low, high = 1e-4, 1e2
    for _ in range(40):
        middle = math.sqrt(low * high)
        log = (cosines / middle).log_softmax(1)
        entropy = -(log.exp() * log).sum(1).mean()
        low, high = (middle, high) if entropy < math.log(perplexity) else (low, middle)
    return float(torch.tensor(math.sqrt(low * high)))


def store_vocabulary(
    annotator: WordAnnotator, source: ImageSource, folder: Path, begun: Manifest | None
) -> Vocabulary:
    """The words of the store in `folder`, which the annotator uses from now on.

    Learned where there are none yet; one process alone may call this. `begun` is the manifest of a
    store that goes on. Raises InputError where words cannot be learned.
    """
    if begun is not None and not begun.words:
        raise InputError(f"{folder} holds labels of classes: choose another output folder")
    if begun is not None and begun.num_classes != annotator.num_classes:
        raise InputError(
            f"{folder} was started with {begun.num_classes} words, now it is {annotator.num_classes}:"
            f" give --words {begun.num_classes}, or another output folder"
        )
    file = folder / FILE_NAME
    if annotator.vocabulary is None and begun is not None:
        annotator.use(Vocabulary.load(file, begun.vocabulary_sha256))
    elif annotator.vocabulary is None and file.exists():
        # of a run that was killed before it wrote down its settings, perhaps other ones
        found = Vocabulary.load(file)
        if found.made | annotator.made(source) == found.made:
            annotator.use(found)
    if annotator.vocabulary is None:
        annotator.use(annotator.learn(source))
    assert annotator.vocabulary is not None
    if begun is None:
        annotator.vocabulary.save(folder)
    return annotator.vocabulary
