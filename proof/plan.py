"""What is run for the proof: annotators, labels, students, arms, ablations. All of it is here.

A run is a `tokenlabel train` command with a recipe of the package; `Run.command` is what is executed,
and what a reader can type.
"""

from __future__ import annotations

from dataclasses import dataclass

WORK = "runs/proof"
IMAGES = f"{WORK}/images"
SEEDS = (0, 1, 2)
EPOCHS = 2

STUDENTS = {
    "lvvit": "LV-ViT, 1.07 M",
    "vit": "ViT, 1.01 M",
    "swin": "Swin, 1.01 M",
    "resnet": "ResNet, 1.06 M",
}


@dataclass(frozen=True)
class Arm:
    """A way to train a student."""

    title: str
    supervision: str
    mix: str
    headline: bool  # trained with every seed


ARMS = {
    "labels": Arm("ground truth", "labels", "none", True),
    "labels-cutmix": Arm("ground truth, CutMix", "labels", "cutmix", False),
    "distillation": Arm("+ image-level distillation", "distillation", "none", True),
    "distillation-cutmix": Arm(
        "+ image-level distillation, CutMix", "distillation", "cutmix", False
    ),
    "tokens": Arm("+ token labels", "token-labels", "none", False),
    "tokens-mixtoken": Arm("+ token labels, MixToken", "token-labels", "mixtoken", True),
}
BASELINES = ("labels", "labels-cutmix")
DISTILLED = ("distillation", "distillation-cutmix")
OURS = "tokens-mixtoken"


@dataclass(frozen=True)
class Annotator:
    """A ResNet-10t taught on the 50 000 training images, from random weights."""

    title: str
    opt: str = "muon"
    lr: str = "6e-3"
    size: int = 48  # pixels; the images have 32
    epochs: int = 8
    min_scale: float = 0.35
    stem: tuple[str, ...] = ()  # timm's argument for another stem than three 3 x 3 convolutions

    def teach(self, output: str) -> list[str]:
        return [
            "teach", "--data", f"{IMAGES}/train", "--output", output, "--model", "resnet10t",
            "--no-pretrained", "--model-kwargs", "output_stride", "8", "channels",
            "[64,128,256,256]", *self.stem, "--image-size", str(self.size),
            "--epochs", str(self.epochs), "--batch-size", "128", "--opt", self.opt,
            "--lr", self.lr, "--min-scale", str(self.min_scale), "--holdout", "0",
            "--dtype", "bfloat16",
        ]  # fmt: skip


ANNOTATORS = {
    "annotator": Annotator("8 epochs of Muon at 48 pixels"),
    "annotator-weak": Annotator("8 epochs of AdamW at 48 pixels", opt="adamw", lr="3e-3"),
    "annotator-strong": Annotator(
        "10 epochs of Muon at 64 pixels, crops of 70-100 %",
        size=64, epochs=10, min_scale=0.7, stem=("stem_type", "''"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """A label store: who annotates, at which input size, keeping how many classes a cell."""

    by: str = "annotator"  # of ANNOTATORS, or the name of a run whose student annotates
    size: int = 64  # pixels; the annotator keeps an eighth of it, a student a quarter
    top_k: int = 5
    codec: str = "compact"
    flip: bool = True  # averaged with the mirrored image

    def annotate(self, output: str) -> list[str]:
        model = f"{WORK}/{self.by}" if self.by in ANNOTATORS else folder(self.by)
        return [
            "annotate", "--data", f"{IMAGES}/train", "--output", output, "--model", model,
            "--image-size", str(self.size), "--top-k", str(self.top_k), "--batch-size", "128",
            "--dtype", "bfloat16", "--flip" if self.flip else "--no-flip", "--codec", self.codec,
        ]  # fmt: skip


LABELS = {
    "labels": Labels(),
    # `released` targets need raw logits, which neither averages nor the compact codec keep
    "labels-exact": Labels(codec="exact", flip=False),
    "labels-6x6": Labels(size=48),
    "labels-4x4": Labels(size=32),
    "labels-k1": Labels(top_k=1),
    "labels-weak": Labels(by="annotator-weak"),
    "labels-strong": Labels(by="annotator-strong"),
    "labels-self": Labels(by="swin-tokens-mixtoken-0", size=32),
}


@dataclass(frozen=True)
class Run:
    """One training run."""

    student: str
    arm: str
    seed: int
    ablation: str | None = None  # what is changed, in words
    labels: str = "labels"
    settings: tuple[str, ...] = ()
    suffix: str = ""
    epochs: int = EPOCHS

    @property
    def name(self) -> str:
        return f"{self.student}-{self.arm}{self.suffix}-{self.seed}"

    @property
    def command(self) -> list[str]:
        arm = ARMS[self.arm]
        taught = [] if arm.supervision == "labels" else ["--labels", f"{WORK}/{self.labels}"]
        return [
            "train", "--data", IMAGES, *taught, "--output", folder(self.name),
            "--recipe", f"cifar10_{self.student}", "--supervision", arm.supervision,
            "--mix", arm.mix, "--epochs", str(self.epochs), "--seed", str(self.seed),
            "--workers", "0", "--set", f"validate_every={self.epochs}",
            *self.settings,
        ]  # fmt: skip


def folder(run: str) -> str:
    return f"{WORK}/runs/{run}"


ABLATED = "swin"


def _ablation(what: str, suffix: str, *settings: str, labels: str = "labels") -> Run:
    return Run(ABLATED, OURS, 0, what, labels, settings, f"-{suffix}")


HEADLINE = [
    *(Run(student, arm, 0) for student in STUDENTS for arm in ARMS),
    *(
        Run(student, arm, seed)
        for seed in SEEDS[1:]
        for student in STUDENTS
        for arm, options in ARMS.items()
        if options.headline
    ),
    # at the first seed CutMix is ahead of ground truth alone on the ViT: so it gets every seed there
    *(Run("vit", "labels-cutmix", seed) for seed in SEEDS[1:]),
]

ABLATIONS = [
    _ablation(
        "`released` targets, crops transposed",
        "transposed",
        "supervision.target=released-transposed",
        labels="labels-exact",
    ),
    _ablation(
        "`released` targets", "released", "supervision.target=released", labels="labels-exact"
    ),
    _ablation("token weight 0.5, as published", "weight-0.5", "supervision.token_weight=0.5"),
    _ablation("token weight 1", "weight-1", "supervision.token_weight=1.0"),
    _ablation("token weight 4", "weight-4", "supervision.token_weight=4.0"),
    _ablation("class target: ground truth", "truth", "supervision.class_target=ground-truth"),
    _ablation("class target: annotator", "annotator", "supervision.class_target=annotator"),
    _ablation("MixToken in every step", "mix-1", "mixing.probability=1.0"),
    _ablation("labels of 6 x 6 cells, annotated at 48 pixels", "6x6", labels="labels-6x6"),
    _ablation("labels of 4 x 4 cells, annotated at 32 pixels", "4x4", labels="labels-4x4"),
    _ablation("weaker annotator", "weak", labels="labels-weak"),
    _ablation("stronger annotator", "strong", labels="labels-strong"),
    _ablation("K = 1", "k1", labels="labels-k1"),
    _ablation("the student itself annotates", "self", labels="labels-self"),
]

LONGER = [
    Run(student, arm, SEEDS[0], epochs=3 * EPOCHS, suffix="-longer")
    for student in ("resnet", "swin", "lvvit")
    for arm in ("labels", OURS)
]

RUNS = [*HEADLINE, *ABLATIONS, *LONGER]
