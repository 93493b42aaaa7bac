"""Token labels as a task of timm's train.py: its optimizer, schedule and moving average around it.

tokenlabel annotate --data photos --model resnet50 --output labels
python examples/timm_task.py photos labels
"""

from __future__ import annotations

import sys

import torch
from plain_pytorch import LabeledFolder
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import AverageMeter
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import tokenlabel as tl


class TokenLabelingTask(ClassificationTask):
    """As timm's task of a classifier, with a target of two parts: classes and token targets."""

    def forward(self, input, target):
        classes, tokens = target
        mix = tl.Mix.draw(len(classes), tokens.grid).to(input.device)
        output = self.trainable_module(input, mix)
        return {
            **tl.token_labeling_loss(output, tokens, classes, mix),
            "output": tl.fuse(output),
        }


def train(
    data, labels, model="vit_tiny_patch16_224", size=224, epochs=10, batch_size=64, workers=4
):
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    images = LabeledFolder(f"{data}/train", labels, size)
    student = tl.DenseModel(model, num_classes=len(images.classes), img_size=size).to(device)
    mean, std = (student.backbone.pretrained_cfg[name] for name in ("mean", "std"))
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])

    def collate(samples):
        pixels, classes, maps, views = zip(*samples, strict=True)
        target = tl.token_targets(maps, views, student.grid(size))
        return torch.stack(pixels), torch.tensor(classes), target

    loader = DataLoader(
        images, batch_size, True, collate_fn=collate, drop_last=True, num_workers=workers
    )
    task = TokenLabelingTask(student, device=device)
    task.setup_ema(decay=0.99)
    optimizer = create_optimizer_v2(student, opt="adamw", lr=5e-4, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs)
    for epoch in range(epochs):
        losses = {name: AverageMeter() for name in ("loss", "class", "token")}
        task.train()
        for pixels, classes, target in loader:
            result = task(normalize(pixels.to(device)), (classes.to(device), target.to(device)))
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            task.trainable_module_ema.update(student)
            for name, meter in losses.items():
                meter.update(result[name].item(), len(classes))
        scheduler.step(epoch + 1)
        print(f"epoch {epoch}:", ", ".join(f"{k} {meter.avg:.3f}" for k, meter in losses.items()))
    return task


if __name__ == "__main__":  # the folder of images and the store of labels
    trained = train(*sys.argv[1:])
    torch.save(trained.trainable_module_ema.module.state_dict(), "student.pth")
