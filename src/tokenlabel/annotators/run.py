"""`run`: every image of a source through an annotator, into a label store.

Shards are stretches of the source in its own order, and each is written by whichever process claims
it first: one process, the ranks of torchrun, or machines that share a folder all end with the same
bytes. Within a shard, batches begin at fixed places, so a killed run that goes on sees the same
batches as an undisturbed one.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from tokenlabel.annotators.protocol import Annotator, FindsByName, Network
from tokenlabel.annotators.word_model import WordAnnotator, store_vocabulary
from tokenlabel.choices import Arithmetic
from tokenlabel.data.channels import of_channels
from tokenlabel.data.decode import decode_image, orientation_by
from tokenlabel.data.levels import reason_of
from tokenlabel.data.reading import StorageError
from tokenlabel.data.source import ImageSource, read_by, source_fingerprint
from tokenlabel.data.survey import is_constant
from tokenlabel.errors import InputError
from tokenlabel.files import Locked, claim_folder, locked, short_of_space
from tokenlabel.labels import Codec, LabelMap
from tokenlabel.labels.codec import encode
from tokenlabel.labels.manifest import FILE_NAME as MANIFEST_FILE
from tokenlabel.labels.manifest import Manifest
from tokenlabel.labels.shard import ShardWriter, shard_name
from tokenlabel.labels.vocabulary import FILE_NAME as VOCABULARY_FILE
from tokenlabel.labels.writer import begin, complete
from tokenlabel.progress import console, progress_bar
from tokenlabel.torchrun import rank_and_world

__all__ = ["run"]

_AHEAD = 2  # batches being read and prepared while one is annotated
_WAIT = 0.5  # s between two looks whether another process has begun the store

T = TypeVar("T")
R = TypeVar("R")


def run(
    source: ImageSource,
    annotator: Annotator[Any],
    output: str | Path,
    *,
    channels: Sequence[int] | None = None,
    batch_size: int | None = None,
    shard_size: int | None = None,
    codec: Codec = "compact",
    threads: int | None = None,
) -> Manifest:
    """Label all images; returns the store's manifest, which is complete when all processes are done.

    `channels` are those of the images, by number, that the annotator is shown; None: those that it
    was trained on, or all.
    Images that cannot be read are left out and listed in `manifest.left_out`; running again tries
    those again. Interrupted runs go on where they stopped. By default the annotator chooses batch size
    and arithmetic; a run that goes on keeps those it began with.
    """
    if isinstance(annotator, FindsByName):
        annotator.check_names(source.keys)
    if (trained := getattr(annotator, "rules", None)) is not None:
        source, channels = read_by(source, trained), channels or trained.chosen
    source = of_channels(source, getattr(annotator, "channels", 3), channels)
    new = not Path(output).exists()
    folder = claim_folder(Path(output), ours=_is_store)
    with _alone(folder, new=new):
        found = _begin(source, annotator, folder, batch_size, shard_size, codec)
    batch_size, size = found.annotator["batch_size"], found.shard_size
    rank, world = rank_and_world()
    shards = max(math.ceil(len(source) / size), 1)
    own_first = sorted(range(shards), key=lambda number: (number - rank) % world)
    with (
        _Job(source, annotator, codec, batch_size, threads) as job,
        progress_bar(visible=rank == 0) as progress,
    ):
        if rank == 0:
            _drop_repaired(folder, found, job, size)
        task = progress.add_task("annotate", total=len(source), note="")
        found_before = 0
        for number in own_first:
            indices = range(number * size, min((number + 1) * size, len(source)))
            shard = ShardWriter.claim(folder / shard_name(number))
            if shard is None:
                found_before += len(indices)
                progress.update(task, advance=len(indices), found=found_before)
                continue
            try:
                job.write(shard, indices, lambda n: progress.advance(task, n))
                shard.finish()
            finally:
                shard.release()
    if job.constant:
        console.print(
            f"{len(job.constant)} images hold one color only, such as {min(job.constant)}: are they"
            " damaged?",
            soft_wrap=True,
        )
    return complete(folder, shards) or Manifest.load(folder)


@contextmanager
def _alone(folder: Path, *, new: bool) -> Iterator[None]:
    """Hold the store, once all who hold it before are done; a `new` folder is removed on InputErrors."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder, "the label store"))
                break
            except Locked:
                time.sleep(_WAIT)
        try:
            yield
            return
        except InputError:
            stack.close()
            if new:
                with suppress(OSError):
                    folder.rmdir()
            raise


def _begin(
    source: ImageSource,
    annotator: Annotator[Any],
    folder: Path,
    batch_size: int | None,
    shard_size: int | None,
    codec: Codec,
) -> Manifest:
    """Find out what is left open, words of a vocabulary too, and write it down for all processes."""
    begun = Manifest.load(folder) if (folder / MANIFEST_FILE).exists() else None
    if isinstance(annotator, Network):
        annotator.settle_arithmetic(_arithmetic(begun), len(source))
    vocabulary = None
    if isinstance(annotator, WordAnnotator):
        vocabulary = store_vocabulary(annotator, source, folder, begun)
    recorded = None if begun is None else begun.annotator.get("batch_size")
    batch_size = batch_size or recorded or annotator.batch_size()
    return begin(
        folder,
        Manifest(
            num_classes=annotator.num_classes,
            class_names=annotator.class_names,
            codec=codec,
            shard_size=shard_size or _shard_size(len(source), batch_size),
            dataset={
                "fingerprint": source_fingerprint(source),
                "samples": len(source),
                "found": source.found.as_dict(),
                # stores of ordinary images say nothing of it, as before there was a choice
                **({} if source.rules.usual else {"decode": source.rules.as_dict()}),
            },
            annotator={**annotator.description, "batch_size": batch_size},
            vocabulary_sha256="" if vocabulary is None else vocabulary.sha256,
        ),
    )


def _arithmetic(begun: Manifest | None) -> Arithmetic:
    """What the labels that are there were computed in."""
    if begun is None:
        return "auto"
    recorded: Arithmetic = begun.annotator.get("dtype", "float32")
    return recorded if recorded in get_args(Arithmetic) else "float32"


class _Job:
    """Annotates stretches of the source into shards, with threads that read ahead and encode."""

    def __init__(
        self,
        source: ImageSource,
        annotator: Annotator[Any],
        codec: Codec,
        batch_size: int,
        threads: int | None,
    ) -> None:
        self.source, self.annotator = source, annotator
        self.codec, self.batch_size = codec, batch_size
        self.constant: list[str] = []  # keys of images of one color
        self._space_checked = False
        threads = threads or min(os.cpu_count() or 1, 16)
        self._readers, self._encoders = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._readers, self._encoders):
            pool.shutdown(cancel_futures=True)

    def write(self, shard: ShardWriter, indices: range, advance: Callable[[int], object]) -> None:
        if len(shard.keys) < len(indices):
            shard.keep(len(shard.keys) // self.batch_size * self.batch_size)
        advance(len(shard.keys))
        rest = indices[len(shard.keys) :]
        batches = [rest[i : i + self.batch_size] for i in range(0, len(rest), self.batch_size)]
        for batch, items in _prefetch(self._readers, self.prepare, batches):
            keys = [self.source.keys[index] for index in batch]
            usable = [n for n, item in enumerate(items) if not isinstance(item, InputError)]
            labels = self.annotator.annotate([items[n] for n in usable])
            names = [keys[n] for n in usable]
            payloads = list(self._encoders.map(self._encoded, names, labels))
            self._require_space(shard.path, payloads)
            written = iter(payloads)
            for key, item in zip(keys, items, strict=True):
                if isinstance(item, InputError):
                    shard.append(key, reason_of(item).encode(), "left out")
                else:
                    shard.append(key, next(written))
            advance(len(batch))

    def _require_space(self, path: Path, payloads: Sequence[bytes]) -> None:
        """After the first batch: refuse to begin what the disk cannot hold."""
        if self._space_checked or not payloads:
            return
        self._space_checked = True
        needed = sum(map(len, payloads)) * len(self.source) // len(payloads)
        if said := short_of_space(path.parent, needed):
            raise InputError(f"{said}: free some space or choose another output folder")

    def prepare(self, index: int) -> Any:
        """What the annotator needs of one image, or the InputError that says why it has nothing."""
        key = self.source.keys[index]
        try:
            data, rules = self.source.read(index), self.source.rules
            orientation = orientation_by(data, key, rules)
            pixels = decode_image(data, key, rules, orientation=orientation)
            if is_constant(pixels):
                self.constant.append(key)
            return self.annotator.prepare(key, pixels, orientation)
        except StorageError:
            raise  # nothing is wrong with the image
        except InputError as error:
            return error

    def _encoded(self, key: str, label_map: LabelMap) -> bytes:
        try:
            return encode(label_map, self.codec)
        except ValueError as error:
            raise InputError(f"the annotator's label of {key} cannot be stored: {error}") from error


def _prefetch(
    pool: ThreadPoolExecutor, prepare: Callable[[T], R], batches: Iterable[Iterable[T]]
) -> Iterator[tuple[Any, list[R]]]:
    """(batch, prepared items), with the next batches being prepared in the pool's threads."""
    waiting: deque[tuple[Any, list[Future[R]]]] = deque()
    for batch in batches:
        waiting.append((batch, [pool.submit(prepare, index) for index in batch]))
        if len(waiting) > _AHEAD:
            first, futures = waiting.popleft()
            yield first, [future.result() for future in futures]
    for first, futures in waiting:
        yield first, [future.result() for future in futures]


def _is_store(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (MANIFEST_FILE, VOCABULARY_FILE))


def _shard_size(samples: int, batch_size: int) -> int:
    """About 64 shards, so that several processes share even small data sets; whole batches."""
    wanted = min(max(math.ceil(samples / 64), 256), 10_000)
    return math.ceil(wanted / batch_size) * batch_size


def _drop_repaired(folder: Path, manifest: Manifest, job: _Job, shard_size: int) -> None:
    """Remove the shards of samples that were left out and can be had now, to be written anew."""
    left_out = {left.key for left in manifest.left_out}
    numbers = {
        index // shard_size
        for index, key in enumerate(job.source.keys if left_out else ())
        if key in left_out and not isinstance(job.prepare(index), InputError)
    }
    if numbers:
        manifest.model_copy(update={"complete": False, "left_out": ()}).save(folder)
    for number in numbers:
        (folder / shard_name(number)).unlink(missing_ok=True)
