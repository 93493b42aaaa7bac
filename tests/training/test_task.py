"""What the student is told, by each kind of supervision."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from workbench import CLASSES, GRID, RECIPE, MemoryBatch, make_task, part, random_batch

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box, View
from tokenlabel.labels import LabelMap, token_targets
from tokenlabel.losses import token_labeling_loss
from tokenlabel.runs.recipe import Mixing
from tokenlabel.supervision import METHODS, Moment
from tokenlabel.training.task import Step, TokenLabelingTask, draw_mix

FIRST = Step(update=0, epoch=0, part=0, parts=1)


def supervised(
    mixing: str = "none", kind: str = "token-labels", **options: Any
) -> TokenLabelingTask:
    recipe = dataclasses.replace(
        RECIPE, supervision=METHODS[kind](**options), mixing=Mixing(kind=mixing)
    )
    return make_task(recipe).eval()


def class_target(task: TokenLabelingTask, labels: Any, target: Any) -> torch.Tensor:
    moment = Moment(0, 2, torch.Generator)
    return task.supervision.targets(labels, target, CLASSES, moment).class_target


@pytest.fixture
def batch() -> MemoryBatch:
    return random_batch(6)


def test_token_labels_are_the_published_loss(batch: MemoryBatch) -> None:
    task = supervised("mixtoken", token_weight=0.3, smoothing=0.1)
    losses = task(batch, FIRST)
    mix = draw_mix(task.mixing, 6, GRID, FIRST, task.seed)
    output = task.student(task.normalize(batch.images), mix)
    truth = torch.nn.functional.one_hot(batch.labels, CLASSES) * 0.9 + 0.1 / CLASSES
    expected = token_labeling_loss(output, batch.target, truth, mix, token_weight=0.3)
    for name in ("loss", "class", "token"):
        assert float(losses[name]) == pytest.approx(float(expected[name]), abs=1e-6)


def test_supervision_by_labels_ignores_the_annotator(batch: MemoryBatch) -> None:
    task = supervised(kind="labels", smoothing=0.0)
    losses = task(batch, FIRST)
    logits = task.student(task.normalize(batch.images)).logits
    expected = torch.nn.functional.cross_entropy(logits, batch.labels)
    assert float(losses["loss"]) == pytest.approx(float(expected), abs=1e-6)


def test_distillation_blends_truth_and_the_whole_views_target(batch: MemoryBatch) -> None:
    task = supervised(kind="distillation", distillation_share=0.3, smoothing=0.0)
    assert batch.target is not None
    truth = torch.nn.functional.one_hot(batch.labels, CLASSES)
    expected = 0.7 * truth + 0.3 * batch.target.class_target()
    assert torch.allclose(class_target(task, batch.labels, batch.target), expected)
    assert task(batch, FIRST).keys() == {"loss", "class"}


def test_without_token_labels_the_token_head_does_not_train(batch: MemoryBatch) -> None:
    for kind in ("labels", "distillation"):
        task = supervised(kind=kind)
        task(batch, FIRST)["loss"].backward()
        trained = [p for p in task.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained)
        assert not any(p.requires_grad for p in task._student.token_head.parameters())


def test_class_targets_of_token_labels(batch: MemoryBatch) -> None:
    """Ground truth, annotator, or the released code's blend: 0.5 where they agree, else 0.9."""
    target = batch.target
    assert target is not None
    annotated, truth = target.class_target(), torch.nn.functional.one_hot(batch.labels, CLASSES)
    labels = batch.labels.clone()
    labels[0] = annotated[0].argmax()  # one, at least, on which they agree
    truth = torch.nn.functional.one_hot(labels, CLASSES).float()
    share = torch.where(annotated.argmax(1) == labels, 0.5, 0.9)[:, None]
    assert share.unique().tolist() == pytest.approx([0.5, 0.9])
    for rule, expected in (
        ("ground-truth", truth),
        ("annotator", annotated),
        ("blend", (1 - share) * truth + share * annotated),
    ):
        task = supervised(class_target=rule, smoothing=0.0)
        assert torch.allclose(class_target(task, labels, target), expected, atol=1e-6)


def test_a_view_that_the_annotator_did_not_see_is_taught_the_truth(batch: MemoryBatch) -> None:
    assert batch.target is not None
    batch.target.mask[2, 0] = False
    task = supervised(class_target="annotator", smoothing=0.0)
    made = class_target(task, batch.labels, batch.target)
    assert torch.equal(made[2], torch.nn.functional.one_hot(batch.labels, CLASSES)[2].float())


def test_class_weights_weigh_images(batch: MemoryBatch) -> None:
    weights = torch.rand(CLASSES) + 0.5
    task, plain = supervised(), supervised()
    task.class_weights = weights
    ours = task(batch, FIRST)
    single = [plain(part(batch, i, 6), FIRST) for i in range(6)]
    for name in ("class", "token"):
        expected = sum(weights[batch.labels[i]] * single[i][name] for i in range(6)) / 6
        assert float(ours[name]) == pytest.approx(float(expected), rel=1e-5)


def test_part_of_the_tokens(batch: MemoryBatch) -> None:
    assert batch.target is not None
    whole = supervised()(batch, FIRST)["token"]
    task = supervised(token_fraction=0.25)
    losses = [task(batch, Step(i, 0, 0, 1))["token"] for i in range(60)]
    assert float(torch.stack(losses).mean()) == pytest.approx(0.25 * float(whole), rel=0.1)
    assert len({float(loss) for loss in losses}) > 50  # drawn anew each update
    assert torch.equal(task(batch, Step(3, 0, 0, 1))["token"], losses[3])  # and again the same


def test_the_last_epochs_go_without_tokens(batch: MemoryBatch) -> None:
    task = supervised(last_epochs_without_tokens=1)  # of two
    first, last = task(batch, FIRST), task(batch, Step(7, 1, 0, 1))
    assert float(first["loss"]) > float(first["class"])
    assert torch.equal(last["loss"], last["class"])


def test_an_online_annotator_sees_the_augmented_view(batch: MemoryBatch) -> None:
    def annotate(images: torch.Tensor) -> list[LabelMap]:
        assert images.dtype == torch.uint8
        means = images.float().mean((2, 3))  # three numbers of each image stand for its classes
        scores = torch.cat([means, means.new_zeros(len(images), CLASSES - 3)], 1) / 100
        return [
            LabelMap.from_logits(s[:, None, None].expand(CLASSES, 2, 2), 3, Box()) for s in scores
        ]

    task = supervised(online=True, smoothing=0.1)
    task.annotator = annotate
    maps = annotate(batch.images)
    stored = token_targets(maps, [View.identity()] * 6, GRID, "probability", 0.1)
    ours = task(dataclasses.replace(batch, target=None), FIRST)
    theirs = task(dataclasses.replace(batch, target=stored), FIRST)
    assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), abs=1e-6)


@pytest.mark.parametrize("kind", ["mixtoken", "cutmix", "mixup", "cutmix-or-mixup"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_a_divided_update_mixes_as_the_whole_does(kind: Any, per_sample: bool) -> None:
    mixing = Mixing(kind=kind, per_sample=per_sample)
    x = torch.randn(16, *GRID, 3)
    for update in range(4):
        whole = draw_mix(mixing, 16, GRID, Step(update, 0, 0, 1), seed=0)
        assert whole is not None
        mixed = []
        for index in range(4):
            mix = draw_mix(mixing, 4, GRID, Step(update, 0, index, 4), seed=0)
            assert mix is not None
            mixed.append(mix(x[4 * index : 4 * index + 4], channels_last=True))
        assert torch.equal(torch.cat(mixed), whole(x, channels_last=True))


def test_odd_parts_mix_with_their_own() -> None:
    mixing = Mixing(kind="mixtoken", per_sample=True)
    for index in range(3):
        mix = draw_mix(mixing, 5, GRID, Step(0, 0, index, 3), seed=0)
        assert mix is not None
        x = torch.randn(5, *GRID, 3)
        again = mix(mix(x, channels_last=True), channels_last=True)
        assert torch.equal(again, x)


def test_how_often_and_how_an_update_mixes() -> None:
    def kinds(mixing: Mixing) -> list[str]:
        drawn = [draw_mix(mixing, 4, GRID, Step(u, 0, 0, 1), seed=0) for u in range(200)]
        return ["none" if m is None else "box" if m.exchanges else "blend" for m in drawn]

    assert set(kinds(Mixing(kind="none"))) == {"none"}
    assert 60 < kinds(Mixing(kind="mixtoken", probability=0.4)).count("box") < 100
    switched = kinds(Mixing(kind="cutmix-or-mixup"))
    assert 80 < switched.count("box") < 120
    assert switched.count("none") == 0


def test_a_compiled_task_computes_the_same(batch: MemoryBatch) -> None:
    """Captured and differentiated ahead of time; the code generator is torch's own affair."""
    task = supervised("mixtoken")
    plain = task(batch, FIRST)
    task.compile(backend="aot_eager")
    captured = task(batch, FIRST)
    captured["loss"].backward()
    for name, loss in plain.items():
        assert float(captured[name].detach()) == pytest.approx(float(loss.detach()), abs=1e-5)
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)


def test_an_online_annotator_sees_the_clean_view_where_there_is_one(batch: MemoryBatch) -> None:
    seen = []

    def annotate(images: torch.Tensor) -> list[LabelMap]:
        seen.append(images)
        return [LabelMap.from_logits(torch.ones(CLASSES, 2, 2), 3, Box())] * len(images)

    task = supervised(online=True)
    task.annotator = annotate
    clean = 255 - batch.images
    task(dataclasses.replace(batch, target=None, clean=clean), FIRST)
    task(dataclasses.replace(batch, target=None), FIRST)
    assert torch.equal(seen[0], clean)
    assert torch.equal(seen[1], batch.images)


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_an_online_annotator_labels_the_mixed_view(batch: MemoryBatch, kind: Any) -> None:
    """Function matching: student and annotator see the same pixels; the ground truth mixes."""
    seen = []

    def annotate(images: torch.Tensor) -> list[LabelMap]:
        seen.append(images)
        scores = images.mean((1, 2, 3))[:, None] * torch.linspace(0, 0.1, CLASSES)
        return [
            LabelMap.from_logits(s[:, None, None].expand(CLASSES, 2, 2), 3, Box()) for s in scores
        ]

    task = supervised(kind, online=True, same_mix=True, class_target="blend", smoothing=0.1)
    task.annotator = annotate
    bare = dataclasses.replace(batch, target=None)
    ours = task(bare, FIRST)
    mix = draw_mix(task.mixing, 6, GRID, FIRST, 0)
    assert mix is not None
    mixed = mix(batch.images.float(), channels_last=False)
    assert torch.equal(seen[0], mixed)
    made = token_targets(annotate(mixed), [View.identity()] * 6, GRID, "probability", 0.1)
    own, other = (
        task.supervision.class_distribution(labels, made, CLASSES)
        for labels in (batch.labels, batch.labels[mix.partner])
    )
    by_hand = token_labeling_loss(
        task.student(task.normalize(mixed)),
        made,
        other.lerp(own, mix.lam[:, None]),
        token_weight=0.5,
    )
    for name, loss in by_hand.items():
        assert float(ours[name].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_no_annotator_sees_exchanged_embeddings() -> None:
    with pytest.raises(InputError, match=r"mixing\.kind=cutmix or mixup"):
        supervised("mixtoken", online=True, same_mix=True)


def test_cutmix_without_tokens_mixes_the_pooled_labels_by_area(batch: MemoryBatch) -> None:
    """ReLabel: the annotator's pooled target of each image, mixed as its pixels are."""
    method = METHODS["distillation"](distillation_share=1.0, smoothing=0.0)
    recipe = dataclasses.replace(RECIPE, supervision=method, mixing=Mixing(kind="cutmix"))
    task = make_task(recipe, heads="class").eval()
    assert batch.target is not None
    losses = task(batch, FIRST)
    mix = draw_mix(task.mixing, 6, (32, 32), FIRST, task.seed)
    assert mix is not None
    mixed = torch.where(mix.share[:, None], batch.images[mix.partner], batch.images)
    logits = task.student(task.normalize(mixed)).logits
    own = batch.target.class_target()
    target = mix.lam[:, None] * own + (1 - mix.lam[:, None]) * own[mix.partner]
    expected = torch.nn.functional.cross_entropy(logits, target)
    assert float(losses["loss"].detach()) == pytest.approx(float(expected.detach()), abs=1e-5)


def test_tokens_cannot_be_taught_without_a_token_head_under_cutmix() -> None:
    recipe = dataclasses.replace(RECIPE, mixing=Mixing(kind="cutmix"))
    with pytest.raises(InputError, match="distillation_share=1 it is ReLabel"):
        make_task(recipe, heads="class")
