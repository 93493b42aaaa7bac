"""Token labels in Hugging Face's Trainer.

tokenlabel annotate --data photos --model resnet50 --output labels
python examples/hf_trainer.py photos labels
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from plain_pytorch import LabeledFolder
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from transformers import Trainer, TrainingArguments

import tokenlabel as tl


class TokenLabelTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **_):
        target = inputs.get("target")  # validation has none
        if target is None:
            output, mix = model(inputs["images"]), None
        else:
            mix = tl.Mix.draw(len(inputs["labels"]), target.grid).to(self.args.device)
            output, target = model(inputs["images"], mix), target.to(self.args.device)
        loss = tl.token_labeling_loss(output, target, inputs["labels"], mix)["loss"]
        return (loss, {"logits": tl.fuse(output)}) if return_outputs else loss


def train(data, labels, model="vit_tiny_patch16_224", size=224, output="runs/hf", **arguments):
    images = LabeledFolder(f"{data}/train", labels, size)
    student = tl.DenseModel(model, num_classes=len(images.classes), img_size=size)
    mean, std = (student.backbone.pretrained_cfg[name] for name in ("mean", "std"))
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    shown = v2.Compose([v2.ToImage(), v2.Resize(size), v2.CenterCrop(size)])

    def collate(samples):
        pixels, classes, *labeled = zip(*samples, strict=True)
        batch = {"images": normalize(torch.stack(pixels)), "labels": torch.tensor(classes)}
        if labeled:
            batch["target"] = tl.token_targets(*labeled, student.grid(size))
        return batch

    trainer = TokenLabelTrainer(
        student,
        TrainingArguments(
            output,
            remove_unused_columns=False,  # the samples are no columns of a table
            label_names=["labels"],
            eval_strategy="epoch",
            save_strategy="epoch",
            **arguments,
        ),
        data_collator=collate,
        train_dataset=images,
        eval_dataset=ImageFolder(f"{data}/val", transform=shown),
        compute_metrics=lambda found: {
            "accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))
        },
    )
    trainer.train()
    return trainer


if __name__ == "__main__":  # the folder of images and the store of labels
    train(*sys.argv[1:], num_train_epochs=10, per_device_train_batch_size=64)
