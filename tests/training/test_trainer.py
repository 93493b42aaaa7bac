"""One update is the same however it is divided, and a bad one changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import (
    OFTEN,
    RECIPE,
    FailAt,
    MemoryBatches,
    SpoilAt,
    make_task,
    run,
    start_ranks,
    weights,
)

from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import Ema, Optimizer, Recipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.loop import TrainingDiverged
from tokenlabel.training.ranks import Ranks, accumulation
from tokenlabel.training.trainer import Trainer


def with_engine(recipe: Recipe, **options: Any) -> Recipe:
    return dataclasses.replace(recipe, engine=dataclasses.replace(recipe.engine, **options))


def curve(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_metrics(folder) if "loss" in entry]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("one") / "run"
    run(RECIPE, folder)
    return folder


def test_half_precision_on_a_cpu_takes_attention_apart() -> None:
    """The fused one's backward pass is slow there; the loss stays what it is in single precision."""
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = with_engine(RECIPE, precision=precision)
        ranks = Ranks(recipe.engine)
        trainer = Trainer(make_task(recipe), recipe, ranks, updates_per_epoch=1)
        fused = {m.fused_attn for m in trainer.student.modules() if hasattr(m, "fused_attn")}
        assert fused == {precision == "fp32"}
        update = trainer.update(next(MemoryBatches(recipe, ranks).epoch(0, 0)), 0)
        losses[precision] = float(update.losses["loss"])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


# -- the loss curve does not depend on how a batch is divided ------------------------------------


def test_four_accumulated_passes_equal_one(one_rank: Path, tmp_path: Path) -> None:
    run(with_engine(RECIPE, device_batch=2), tmp_path / "run")
    assert curve(tmp_path / "run") == pytest.approx(curve(one_rank), abs=1e-5)


@pytest.mark.parametrize(
    "engine",
    [{}, {"device_batch": 2}, {"sharding": "fsdp"}, {"sharding": "fsdp", "device_batch": 2}],
    ids=["ddp", "ddp-accumulated", "fsdp", "fsdp-accumulated"],
)
def test_two_ranks_equal_one(engine: dict[str, Any], one_rank: Path, tmp_path: Path) -> None:
    for process in start_ranks(2, run, with_engine(RECIPE, **engine), tmp_path / "run"):
        process.join()
        assert process.exitcode == 0
    assert curve(tmp_path / "run") == pytest.approx(curve(one_rank), abs=1e-4)
    ours, theirs = weights(tmp_path / "run"), weights(one_rank)
    assert ours.keys() == theirs.keys()  # any run's checkpoint is any other's
    model = [name for name in theirs if name.startswith("model.")]
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in model)


def test_a_sharded_run_goes_on_unsharded(one_rank: Path, tmp_path: Path) -> None:
    sharded = with_engine(OFTEN, sharding="fsdp")
    for process in start_ranks(2, run, sharded, tmp_path / "run", spoil=FailAt(4)):
        process.join()
        assert process.exitcode == 1
    run(RECIPE, tmp_path / "run")
    assert curve(tmp_path / "run") == pytest.approx(curve(one_rank), abs=1e-4)


def test_the_largest_passes_that_fit_are_taken() -> None:
    def passes(total: int, world: int, most: int) -> int:
        recipe = dataclasses.replace(
            with_engine(RECIPE, device_batch=most),
            schedule=dataclasses.replace(RECIPE.schedule, batch_size=total),
        )
        return accumulation(recipe, world, most)

    assert passes(1024, 8, 128) == 1
    assert passes(1024, 1, 128) == 8
    assert passes(96, 2, 20) == 3  # 16 at a time: 20 does not divide 48
    with pytest.raises(InputError, match="divided evenly among 3"):
        passes(64, 3, 64)


# -- updates that must not happen ----------------------------------------------------------------


def test_an_update_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    """Weights, moments, average and batch-norm statistics, in a model that has all of them."""
    ranks = Ranks(RECIPE.engine)
    task = make_task(RECIPE, name="lvvit_t", stem_width=8, patch_size=8)
    trainer = Trainer(task, RECIPE, ranks, updates_per_epoch=4)
    groups = list(MemoryBatches(RECIPE, ranks).epoch(0, 0))
    trainer.update(groups[0], epoch=0)
    before = _clone(trainer.state())
    SpoilAt(1)(1, groups[1])
    groups[1][0].images[:] = 255  # would move the statistics of batch norm
    update = trainer.update(groups[1], epoch=0)
    assert update.skipped
    after = _clone(trainer.state())
    assert (
        before["progress"] | {"updates": 2, "skipped": 1, "skipped_in_a_row": 1}
        == (after["progress"])
    )
    for kind in ("model", "ema"):
        assert any("running_mean" in name for name in before[kind])
        for name, value in before[kind].items():
            if "num_batches" not in name:
                assert torch.equal(value, after[kind][name]), name
    for name, moments in before["optimizer"]["state"].items():
        assert all(torch.equal(v, after["optimizer"]["state"][name][k]) for k, v in moments.items())
    assert not trainer.update(groups[2], epoch=0).skipped
    assert trainer.skipped_in_a_row == 0


def _clone(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _clone(value) for key, value in state.items()}
    return state.clone() if isinstance(state, torch.Tensor) else state


def test_too_many_bad_updates_stop_the_run_with_a_good_state(tmp_path: Path) -> None:
    recipe = with_engine(RECIPE, max_bad_steps=3)
    with pytest.raises(TrainingDiverged, match="3 updates in a row"):
        run(recipe, tmp_path / "run", spoil=SpoilAt(3, 4, 5))
    culprits = json.loads((tmp_path / "run/bad-batch-rank0.json").read_text())
    assert "the output of every layer was" in culprits["cause"]
    assert culprits["keys"] == [f"101-{i}" for i in range(8)]  # update 5 is the 2nd of epoch 1
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    results = run(recipe, tmp_path / "run")  # the culprit mended, it goes on from there
    assert results["updates"] == 8
    assert results["skipped"] == 3


def test_an_epoch_whose_last_updates_are_bad_is_validated_before_the_run_stops(
    tmp_path: Path,
) -> None:
    """Both an epoch within the run and its last one: what goes on later begins after it."""
    recipe = with_engine(RECIPE, max_bad_steps=2)
    recipe = dataclasses.replace(recipe, log_every=100)

    def validation(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        return {"top1": 0.5}

    def validated() -> list[int]:
        return [e["update"] for e in read_metrics(tmp_path / "run") if "val/top1" in e]

    with pytest.raises(TrainingDiverged, match="output of every layer was"):
        run(recipe, tmp_path / "run", validation=validation, spoil=SpoilAt(2, 3))
    assert validated() == [4]
    with pytest.raises(TrainingDiverged, match="output of every layer was"):
        run(recipe, tmp_path / "run", validation=validation, spoil=SpoilAt(6, 7))
    results = run(recipe, tmp_path / "run", validation=validation)
    assert validated() == [4, 8]
    assert (results["updates"], results["best_top1"]) == (8, 0.5)
    assert [e["update"] for e in read_metrics(tmp_path / "run") if "loss" in e] == [8]


def test_one_ranks_bad_batch_is_skipped_by_all(tmp_path: Path) -> None:
    for process in start_ranks(2, run, RECIPE, tmp_path / "run", spoil=SpoilAt(3, rank=1)):
        process.join()
        assert process.exitcode == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["skipped"] == 1


# -- the parts of an update ----------------------------------------------------------------------


def _trainer(recipe: Recipe, **model: Any) -> Trainer:
    return Trainer(make_task(recipe, **model), recipe, Ranks(recipe.engine), updates_per_epoch=4)


def test_clipping_bounds_the_gradient() -> None:
    recipe = dataclasses.replace(
        RECIPE,
        optimizer=Optimizer(name="momentum", momentum=0.0, lr=1.0, clip=0.1, weight_decay=0.0),
    )
    trainer = _trainer(recipe)
    before = _clone(trainer.state()["model"])
    (group,) = list(MemoryBatches(recipe, trainer.ranks, updates=1).epoch(0, 0))
    norm = trainer.update(group, epoch=0).gradient_norm
    after = trainer.state()["model"]
    moved = torch.cat([(after[k] - before[k]).flatten() for k in before]).norm()
    assert norm > 0.1
    assert float(moved) == pytest.approx(0.1 * trainer.lr, rel=1e-3)


def test_layer_decay_slows_the_lower_layers() -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=Optimizer(lr=1.0, layer_decay=0.5))
    trainer = _trainer(recipe)
    rate = {
        id(p): group.get("lr_scale", 1.0)
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    rates = {name: rate[id(p)] for name, p in trainer.student.named_parameters()}
    assert rates["backbone.head.weight"] == rates["aux_head.weight"] == 1.0
    assert rates["backbone.blocks.1.attn.qkv.weight"] == 0.5
    assert rates["backbone.blocks.0.attn.qkv.weight"] == 0.25
    assert rates["backbone.patch_embed.proj.weight"] == 0.125


def test_weight_decay_spares_positions_class_token_biases_and_norms() -> None:
    trainer = _trainer(RECIPE)
    decay = {
        id(p): group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    spared = {n for n, p in trainer.student.named_parameters() if decay[id(p)] == 0}
    assert {"backbone.pos_embed", "backbone.cls_token", "backbone.norm.weight"} <= spared
    assert not any(n.endswith(".weight") and "norm" not in n for n in spared)


def test_weight_decay_may_reach_every_parameter() -> None:
    optimizer = dataclasses.replace(RECIPE.optimizer, decay_all=True, weight_decay=0.1)
    trainer = _trainer(dataclasses.replace(RECIPE, optimizer=optimizer))
    groups = trainer.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.1}
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.student.parameters()))


def test_the_rate_warms_up_decays_and_cools_down() -> None:
    schedule = dataclasses.replace(
        RECIPE.schedule, epochs=10, warmup_epochs=2, cooldown_epochs=2, warmup_lr=1e-4, min_lr=1e-3
    )
    trainer = _trainer(dataclasses.replace(RECIPE, schedule=schedule))
    rates = []
    for update in range(12 * 4):
        trainer.schedule.step_update(update)
        rates.append(trainer.lr)
    assert rates[0] == pytest.approx(1e-4)
    assert rates[8] == max(rates[8:])
    assert rates[8] == pytest.approx(1e-2, rel=0.1)
    assert rates[40:] == pytest.approx([1e-3] * 8)
    assert rates[8:40] == sorted(rates[8:40], reverse=True)


@pytest.mark.parametrize("on_cpu", [False, True])
def test_the_average_follows_its_definition(on_cpu: bool) -> None:
    trainer = _trainer(dataclasses.replace(RECIPE, ema=Ema(decay=0.7, on_cpu=on_cpu)))
    expected = None
    for group in MemoryBatches(RECIPE, trainer.ranks).epoch(0, 0):
        trainer.update(group, epoch=0)
        now = _clone(trainer.state()["model"])
        # the average begins with the first update's weights
        expected = {k: 0.7 * v + 0.3 * now[k] for k, v in (expected or now).items()}
    assert expected is not None
    average = trainer.state()["ema"]
    assert all(torch.allclose(average[k], v, atol=1e-6) for k, v in expected.items())


@pytest.mark.parametrize(
    "engine",
    [{"token_head_chunk": 3}, {"activation_checkpointing": True}, {"channels_last": True}],
    ids=lambda engine: next(iter(engine)),
)
def test_ways_of_computing_do_not_change_the_loss(
    engine: dict[str, Any], one_rank: Path, tmp_path: Path
) -> None:
    run(with_engine(RECIPE, **engine), tmp_path / "run")
    assert curve(tmp_path / "run") == pytest.approx(curve(one_rank), abs=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_single(
    precision: str, one_rank: Path, tmp_path: Path
) -> None:
    run(with_engine(RECIPE, precision=precision), tmp_path / "run")
    assert curve(tmp_path / "run") == pytest.approx(curve(one_rank), abs=0.05)


@pytest.mark.slow
def test_compiling_does_not_change_the_loss(one_rank: Path, tmp_path: Path) -> None:
    run(with_engine(RECIPE, compile=True), tmp_path / "run")
    assert curve(tmp_path / "run") == pytest.approx(curve(one_rank), abs=1e-4)
