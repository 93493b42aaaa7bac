"""Token labels in a training loop of your own: PyTorch, torchvision's ImageFolder, any timm model.

tokenlabel annotate --data photos --model resnet50 --output labels
python examples/plain_pytorch.py photos labels
"""

from __future__ import annotations

import os
import sys

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import tokenlabel as tl


class LabeledFolder(ImageFolder):
    """ImageFolder whose samples carry the image's label map, and the view that the crop shows."""

    def __init__(self, root, store, size):
        super().__init__(root)
        self.store, self.size, self.augment = tl.LabelStore(store), size, tl.Augmentation()

    def __getitem__(self, index):
        path, label = self.samples[index]
        pixels, view = self.augment(self.loader(path), self.size)
        key = os.path.relpath(path, self.root).replace(os.sep, "/")
        return pixels, label, self.store[key], view


def train(
    data, labels, model="vit_tiny_patch16_224", size=224, epochs=10, batch_size=64, workers=4
):
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    images = LabeledFolder(f"{data}/train", labels, size)
    student = tl.DenseModel(model, num_classes=len(images.classes), img_size=size).to(device)
    grid = student.grid(size)
    mean, std = (student.backbone.pretrained_cfg[name] for name in ("mean", "std"))

    def collate(samples):
        pixels, classes, maps, views = zip(*samples, strict=True)
        return torch.stack(pixels), torch.tensor(classes), tl.token_targets(maps, views, grid)

    loader = DataLoader(
        images, batch_size, True, collate_fn=collate, drop_last=True, num_workers=workers
    )
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4, weight_decay=0.05)
    for epoch in range(epochs):
        student.train()
        for pixels, classes, target in loader:
            mix = tl.Mix.draw(len(classes), grid).to(device)
            output = student(normalize(pixels.to(device)), mix)
            terms = tl.token_labeling_loss(output, target.to(device), classes.to(device), mix)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        found = accuracy(student, data, size, normalize)
        print(f"epoch {epoch}: loss {terms['loss']:.3f}, accuracy {found:.1%}")
    return student


@torch.no_grad()
def accuracy(student, data, size, normalize):
    shown = v2.Compose([v2.ToImage(), v2.Resize(size), v2.CenterCrop(size)])
    right, images, device = 0, ImageFolder(f"{data}/val", shown), next(student.parameters()).device
    student.eval()
    for pixels, classes in DataLoader(images, 64):
        answer = tl.fuse(student(normalize(pixels.to(device)))).argmax(1)
        right += int((answer.cpu() == classes).sum())
    return right / len(images)


if __name__ == "__main__":  # the folder of images and the store of labels
    torch.save(train(*sys.argv[1:]).state_dict(), "student.pth")
