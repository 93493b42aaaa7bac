"""The closed form against its dense definition, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tokenlabel import Box, DenseOutput, LabelMap, Mix, TokenTarget, View, token_targets
from tokenlabel.losses import fused_token_loss, token_labeling_loss, token_loss

GRID, CLASSES = (3, 4), 20


def make_target(batch: int = 4, smoothing: float = 0.1, seed: int = 0) -> TokenTarget:
    generator = torch.Generator().manual_seed(seed)
    maps = [
        LabelMap.from_logits(torch.randn(CLASSES, 5, 6, generator=generator) * 3, 3, Box())
        for _ in range(batch)
    ]
    # the second view reaches beyond the image, so that some tokens have no target
    views = [View.crop(Box(0.1 * i - 0.4 * (i == 1), 0.0, 0.9, 0.8)) for i in range(batch)]
    return token_targets(maps, views, GRID, smoothing=smoothing)


def make_output(batch: int = 4, dtype: torch.dtype = torch.float64) -> DenseOutput:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(batch, CLASSES, generator=generator, dtype=dtype)
    tokens = torch.randn(batch, *GRID, CLASSES, generator=generator, dtype=dtype) * 4
    return DenseOutput(logits.requires_grad_(), tokens.requires_grad_())


def dense_token_loss(tokens: torch.Tensor, target: TokenTarget) -> torch.Tensor:
    """The definition: cross-entropy with full distributions, mean over all tokens."""
    full = target.dense()[:, 1:].to(tokens.dtype)
    per_token = -(full * F.log_softmax(tokens.flatten(1, 2), -1)).sum(-1)
    return (per_token * target.mask[:, 1:]).sum() / per_token.numel()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_closed_form_equals_the_definition_and_its_gradient(smoothing: float) -> None:
    target, output = make_target(smoothing=smoothing), make_output()
    assert not target.mask.all()
    expected = dense_token_loss(output.tokens, target)
    (expected_grad,) = torch.autograd.grad(expected, output.tokens)
    actual = token_loss(output.tokens, target)
    (actual_grad,) = torch.autograd.grad(3 * actual, output.tokens)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6, check_dtype=False)
    torch.testing.assert_close(actual_grad, 3 * expected_grad, atol=1e-8, rtol=1e-6)


def test_tokens_without_a_target_have_no_gradient() -> None:
    target, output = make_target(), make_output()
    token_loss(output.tokens, target).backward()
    gradient = output.tokens.grad
    assert gradient is not None
    flat, mask = gradient.flatten(1, 2), target.mask[:, 1:]
    assert (flat[~mask] == 0).all()
    assert (flat[mask] != 0).any(-1).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    target, output = make_target(batch=2), make_output(batch=2)
    (gradient,) = torch.autograd.grad(token_loss(output.tokens, target), output.tokens)
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        step = torch.randn(output.tokens.shape, generator=generator, dtype=torch.float64) * 1e-3
        with torch.no_grad():
            ahead = token_loss(output.tokens + step, target)
            behind = token_loss(output.tokens - step, target)
        difference = (ahead - behind).item() / 2
        assert difference == pytest.approx((gradient * step).sum().item(), abs=1e-8)


def test_a_loss_is_differentiated_once() -> None:
    target, output = make_target(), make_output()
    loss = token_loss(output.tokens, target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already differentiated"):
        loss.backward()


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1000.0])
def test_large_logits_lose_nothing(offset: float) -> None:
    target = make_target()
    tokens = (make_output(dtype=torch.float64).tokens.detach() * 10 + offset).requires_grad_()
    expected = dense_token_loss(tokens, target)
    actual = token_loss(tokens.detach().float(), target)
    assert actual.item() == pytest.approx(expected.item(), rel=2e-5)


@pytest.mark.parametrize("kind", ["mixtoken", "mixup"])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_mixed_loss_equals_the_definition(kind: str, batch: int) -> None:
    target, output = make_target(batch), make_output(batch)
    mix = Mix.draw(
        batch, GRID, kind=kind, per_sample=True, generator=torch.Generator().manual_seed(3)
    )
    labels = torch.arange(batch)
    terms = token_labeling_loss(output, target, labels, mix, token_weight=0.7)
    one_hot = F.one_hot(labels, CLASSES).double()
    lam = mix.lam.double().expand(batch)[:, None]
    soft = lam * one_hot + (1 - lam) * one_hot[mix.partner]
    expected_class = -(soft * F.log_softmax(output.logits, -1)).sum(-1).mean()
    full, mask = target.dense()[:, 1:].double(), target.mask[:, 1:]
    if kind == "mixup":  # both targets, each with its weight, where both exist
        share = mix.share.flatten(1).double()[..., None].expand(batch, -1, 1)
        full = (1 - share) * full + share * full[mix.partner]
        mask = mask & mask[mix.partner]
    log_q = F.log_softmax(output.tokens.flatten(1, 2), -1)
    expected_token = (-(full * log_q).sum(-1) * mask).sum() / mask.numel()
    assert terms["class"].item() == pytest.approx(expected_class.item(), abs=1e-5)
    assert terms["token"].item() == pytest.approx(expected_token.item(), abs=1e-5)
    assert terms["loss"].item() == pytest.approx(
        (expected_class + 0.7 * expected_token).item(), abs=1e-5
    )


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("with_bias", [True, False])
def test_fused_head_equals_head_then_loss(chunk: int, with_bias: bool) -> None:
    target = make_target()
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(4, *GRID, 7, generator=generator, requires_grad=True)
    head = torch.nn.Linear(7, CLASSES, bias=with_bias)
    inputs = [features, *head.parameters()]
    expected = token_loss(head(features), target)
    expected_grads = torch.autograd.grad(2 * expected, inputs)
    actual = fused_token_loss(features, head.weight, head.bias, target, chunk=chunk)
    actual_grads = torch.autograd.grad(2 * actual, inputs)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual_grads, expected_grads)


@pytest.mark.parametrize("fused", [False, True])
def test_half_precision_keeps_the_small_parts_of_a_gradient(fused: bool) -> None:
    """A mean over as many tokens as a batch has is below float16's smallest number in most classes."""
    classes, generator = 500, torch.Generator().manual_seed(5)
    ids = torch.randint(classes, (32, 4), generator=generator)
    shares = torch.full((32, 197, 4), 0.2)
    target = TokenTarget(
        ids, shares, shares[..., 0] / classes, shares[..., 0] > 0, (14, 14), classes
    )
    features = torch.randn(32, 14, 14, 8, generator=generator).half().requires_grad_()
    weight = torch.randn(classes, 8, generator=generator).half().requires_grad_()

    def gradients(features: torch.Tensor, weight: torch.Tensor, scale: float) -> list[torch.Tensor]:
        loss = (
            fused_token_loss(features, weight, None, target)
            if fused
            else token_loss(features @ weight.T, target)
        )
        return [g.float() / scale for g in torch.autograd.grad(loss * scale, [features, weight])]

    expected = gradients(features.detach().float().requires_grad_(), weight.float(), 1.0)
    actual = gradients(features, weight, 65536.0)
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).norm() < 2e-3 * other.norm()


def test_without_labels_the_class_token_learns_the_annotator() -> None:
    target, output = make_target(), make_output()
    terms = token_labeling_loss(output, target)
    expected = F.cross_entropy(output.logits.float(), target.dense()[:, 0])
    torch.testing.assert_close(terms["class"], expected)


def test_plain_classification_has_no_token_term() -> None:
    output = make_output()
    terms = token_labeling_loss(output, None, torch.arange(4))
    assert set(terms) == {"loss", "class"}
    with pytest.raises(ValueError, match="class_target"):
        token_labeling_loss(output, None)


def test_grids_must_agree() -> None:
    target = make_target()
    tokens = torch.zeros(4, 2, 4, CLASSES)
    with pytest.raises(ValueError, match=r"tokens are \(2, 4\), the targets \(3, 4\)"):
        token_loss(tokens, target)


def test_parity_with_the_released_loss(released_numbers) -> None:
    """Loss and gradients recorded from the released code (dense weight 0.5, class weight 1)."""
    from safetensors import safe_open

    for name in ("square_crop", "any_crop_nosmooth"):
        with safe_open(released_numbers / f"target_{name}.safetensors", framework="pt") as file:
            data = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = file.metadata()
        smoothing, classes = float(meta["smoothing"]), int(meta["num_classes"])
        side = int(meta["label_size"])
        maps, views = [], []
        for i in range(len(data["scores"])):
            left, top = data["left"][i].item(), data["top"][i].item()
            width, height = data["width"][i].item(), data["height"][i].item()
            maps.append(LabelMap(data["scores"][i], data["ids"][i].long(), None, Box(), classes))
            views.append(View.crop(Box(left, top, left + width, top + height)))
        target = token_targets(maps, views, (side, side), "released", smoothing)
        torch.testing.assert_close(
            target.dense().transpose(1, 2), data["target_xy"][:, :, 1:], atol=1e-5, rtol=0
        )
        row0, col0, row1, col1 = data["mix_box_rows_cols"].tolist()
        batch = len(maps)
        share = torch.zeros(1, side, side, dtype=torch.bool)
        share[:, row0:row1, col0:col1] = True
        mix = Mix(torch.arange(batch).flip(0), share)
        logits = data["cls_logits"].requires_grad_()
        tokens = data["token_logits"].reshape(batch, side, side, classes).requires_grad_()
        terms = token_labeling_loss(DenseOutput(logits, tokens), target, mix=mix, token_weight=0.5)
        grads = torch.autograd.grad(terms["loss"], [logits, tokens])
        assert terms["loss"].item() == pytest.approx(data["loss"].item(), abs=1e-5)
        torch.testing.assert_close(grads[0], data["grad_cls"], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            grads[1].flatten(1, 2), data["grad_tok"].reshape(batch, -1, classes), atol=1e-5, rtol=0
        )


def test_an_image_without_an_annotators_class_target_has_no_class_loss() -> None:
    target, output = make_target(), make_output()
    target.mask[2, 0] = False
    terms = token_labeling_loss(output, target)
    full = F.cross_entropy(output.logits.float(), target.dense()[:, 0], reduction="none")
    torch.testing.assert_close(terms["class"], full[[0, 1, 3]].sum() / 4)
    (gradient,) = torch.autograd.grad(terms["class"], output.logits)
    assert (gradient[2] == 0).all()
    assert (gradient[[0, 1, 3]] != 0).all()


@pytest.mark.parametrize("kind", ["none", "mixtoken", "mixup"])
@pytest.mark.parametrize("soft", [True, False])
def test_weights_weigh_each_images_targets(kind: str, soft: bool) -> None:
    """Also where images are mixed: a weight goes with the target, not with the place."""
    target, output = make_target(), make_output()
    weights, labels = torch.tensor([0.5, 2.0, 0.0, 1.0]), torch.arange(4)
    mix = None if kind == "none" else Mix.draw(4, GRID, kind=kind, per_sample=True)
    class_target = F.one_hot(labels, CLASSES).float() if soft else labels
    weighed = token_labeling_loss(output, target, class_target, mix, weights=weights)
    by_hand = F.one_hot(labels, CLASSES) * weights[:, None]
    expected = token_labeling_loss(output, target.weighted(weights), by_hand, mix)
    for name, value in expected.items():
        torch.testing.assert_close(weighed[name], value)


@pytest.mark.parametrize("chunk", [None, 2])
def test_one_loss_with_and_without_a_fused_head(chunk: int | None) -> None:
    target, output = make_target(), make_output(dtype=torch.float32)
    features = torch.randn(4, *GRID, 7)
    head = torch.nn.Linear(7, CLASSES)
    expected = token_labeling_loss(DenseOutput(output.logits, head(features)), target)
    before = DenseOutput(output.logits, features)
    fused = token_labeling_loss(before, target, head=head, chunk=chunk)
    torch.testing.assert_close(fused, expected)
