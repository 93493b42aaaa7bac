"""Token labels in a LightningModule (pip install lightning).

tokenlabel annotate --data photos --model resnet50 --output labels
python examples/lightning_module.py photos labels
"""

from __future__ import annotations

import sys

import lightning
import torch
from plain_pytorch import LabeledFolder
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import tokenlabel as tl


class TokenLabeling(lightning.LightningModule):
    def __init__(self, model, num_classes, size):
        super().__init__()
        self.save_hyperparameters()
        self.student = tl.DenseModel(model, num_classes=num_classes, img_size=size)
        mean, std = (self.student.backbone.pretrained_cfg[name] for name in ("mean", "std"))
        self.normalize = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        )

    def collate(self, samples):
        pixels, classes, maps, views = zip(*samples, strict=True)
        target = tl.token_targets(maps, views, self.student.grid(self.hparams.size))
        return torch.stack(pixels), torch.tensor(classes), target

    def training_step(self, batch, _):
        pixels, classes, target = batch
        mix = tl.Mix.draw(len(classes), target.grid).to(self.device)
        output = self.student(self.normalize(pixels), mix)
        terms = tl.token_labeling_loss(output, target, classes, mix)
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        return terms["loss"]

    def validation_step(self, batch, _):
        pixels, classes = batch
        answer = tl.fuse(self.student(self.normalize(pixels))).argmax(1)
        self.log("val/accuracy", (answer == classes).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-4, weight_decay=0.05)


def train(
    data, labels, model="vit_tiny_patch16_224", size=224, batch_size=64, workers=4, **arguments
):
    images = LabeledFolder(f"{data}/train", labels, size)
    shown = v2.Compose([v2.ToImage(), v2.Resize(size), v2.CenterCrop(size)])
    module = TokenLabeling(model, len(images.classes), size)
    trainer = lightning.Trainer(**arguments)
    trainer.fit(
        module,
        DataLoader(
            images, batch_size, True, collate_fn=module.collate, drop_last=True, num_workers=workers
        ),
        DataLoader(ImageFolder(f"{data}/val", transform=shown), batch_size),
    )
    return trainer


if __name__ == "__main__":  # the folder of images and the store of labels
    train(*sys.argv[1:], max_epochs=10)
