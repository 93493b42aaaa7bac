"""Which runs the proof makes, in their order (see `runs.py`).

The stages depend on what is known already: the strongest baseline and the better mixing of a student
are chosen by the first seed, and get the further seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from runs import (
    ARMS,
    BASELINES,
    DATA,
    DISTILLED,
    LONG_EPOCHS,
    LONGEST_EPOCHS,
    OURS,
    SEEDS,
    STUDENTS,
    Images,
    Run,
    images,
)

CARRIED_ON = ("cifar10", "lvvit")  # the data and the student that `camvid.py` goes on with
SETTLED = 1.0  # points: a third seed is trained where a difference is smaller

Scores = Callable[[Run], float | None]  # of runs that have a record


def stages(cifar: Images, tiny: Images | None, score: Scores) -> Iterator[Sequence[Run]]:
    """The runs in their order, those that tell most first. Each stage is asked for when the ones
    before are done: `score` then knows of their runs."""
    yield list(_first(cifar, tiny))
    for seed in SEEDS[1:]:
        for subset, by in ((cifar, "taught"), (tiny, "finetuned")):
            if subset is not None:
                yield list(_again(subset, by, seed, score))


def _first(cifar: Images, tiny: Images | None) -> Iterator[Run]:
    """Every arm with one seed."""
    first = ("lvvit", "vit", "resnet")
    for arm in ("labels", "tokens"):
        yield from (Run(cifar, student, arm, 0) for student in first)
    if tiny is not None:
        for choice in (("labels", 0), ("tokens", 0, "finetuned"), ("tokens", 0, "pretrained")):
            yield from (Run(tiny, student, *choice) for student in DATA[tiny.data].students)
    for arm in ("labels-cutmix", "tokens-mixtoken", *DISTILLED):
        yield from (Run(cifar, student, arm, 0) for student in first)
    yield from (Run(cifar, "swin", arm, 0) for arm in ARMS)
    if tiny is not None:
        rest = (("labels-cutmix", 0), ("tokens-mixtoken", 0, "finetuned"),
                *((arm, 0, "finetuned") for arm in DISTILLED), ("tokens", 0, "taught"),
                ("tokens-mixtoken", 0, "taught"))  # fmt: skip
        for choice in rest:
            yield from (Run(tiny, student, *choice) for student in DATA[tiny.data].students)
    yield from (Run(cifar, s, "tokens", 0, parts=3) for s in ("vit", "lvvit", "swin"))
    yield from (Run(cifar, student, "tokens", 0, "large") for student in ("lvvit", "resnet"))


def _again(of: Images, by: str, seed: int, score: Scores) -> Iterator[Run]:
    """The strongest baseline, the better distillation and ours with a further seed; a third one
    only where the differences so far leave it open, or `camvid.py` goes on with the students."""
    for student in DATA[of.data].students:
        base = best(of, student, BASELINES, by, score)
        ours = best(of, student, OURS, by, score)
        distilled = best(of, student, DISTILLED, by, score)
        before = [
            (score(Run(of, student, ours, s, by)), score(Run(of, student, base, s, by)))
            for s in SEEDS[:seed]
        ]
        gaps = [a - b for a, b in before if a is not None and b is not None]
        settled = seed > 1 and gaps and abs(sum(gaps) / len(gaps)) >= SETTLED
        if settled and (of.data, student) != CARRIED_ON:
            continue
        for arm in (base, ours, distilled):
            yield Run(of, student, arm, seed, by)


def best(of: Images, student: str, arms: Sequence[str], by: str, score: Scores) -> str:
    """The arm that is ahead at the first seed."""
    scores = {arm: score(Run(of, student, arm, SEEDS[0], by)) for arm in arms}
    return max(arms, key=lambda arm: -1.0 if scores[arm] is None else scores[arm] or 0.0)


def long_schedule(of: Images) -> list[Run]:
    """Every student for longer; the Swin's labels are those of `better_annotator`."""
    mixed = ("labels-cutmix", "tokens-mixtoken")
    arms = {
        "lvvit": mixed,
        "vit": mixed,
        "resnet": ("labels", "tokens"),
        "swin": ("labels", "labels-cutmix"),
    }
    return [Run(of, student, arm, 0, "strong") for student in STUDENTS for arm in arms[student]]


def longest_schedule(of: Images) -> list[Run]:
    """Both vision transformers until they hardly gain any more, and one for a third of that."""
    arms, students = ("labels-cutmix", "tokens-mixtoken"), ("lvvit", "vit")
    whole = [Run(of, student, arm, 0, "accurate") for arm in arms for student in students]
    return [*whole, Run(of, "vit", "tokens-mixtoken", 0, "accurate", parts=3)]


def better_annotator(of: Images) -> list[Run]:
    """Labels of the most accurate annotator, which has memorized its images: with two seeds, and for
    twice the epochs."""
    ours = {"lvvit": OURS[1], "vit": OURS[1], "swin": OURS[1], "resnet": OURS[0]}  # the better ones
    runs = [Run(of, s, arm, seed, "accurate") for seed in (0, 1) for s, arm in ours.items()]
    distilled = [Run(of, student, "distillation", 0, "accurate") for student in ours]
    longer = [Run(LONG, student, ours[student], 0, "accurate") for student in ("swin", "resnet")]
    return runs + distilled + longer


def annotator_table(of: Images) -> list[Run]:
    """Annotators of other accuracy and honesty, on two students, beside ground truth."""
    students = ("lvvit", "resnet")
    kinds = ("taught", "folds-2", "folds-5", "mse", "early", "short", "long")
    return [Run(of, s, arm, 0) for arm in BASELINES for s in students] + [
        Run(of, s, "tokens", 0, by) for by in kinds for s in students
    ]


def small_data(data: str) -> list[Run]:
    """500 and 50 images a class, the annotator taught on the same few, also in folds."""
    choices = (
        *((arm, 0) for arm in (*BASELINES, *DISTILLED, *OURS)),
        ("tokens", 0, "folds-2"),
    )
    return [
        Run(images(data, count), student, *choice)
        for count in (500, 50)
        for student in ("lvvit", "vit", "resnet")
        for choice in choices
    ]


def carry_over() -> list[Run]:
    """Students fine-tuned on the other data set, at their own image size."""
    ways = (
        (("cifar10", 5000), "taught", ("tinyimagenet100", 100)),
        (("tinyimagenet100", 100), "finetuned", ("cifar10", 1000)),
    )
    return [
        Run(Images(*after, 10), s, "labels", 0, start=Run(images(*before), s, arm, 0, by))
        for before, by, after in ways
        for s in ("lvvit", "vit")
        for arm in ("labels-cutmix", "tokens-mixtoken")
    ]


LONG = Images("cifar10", 5000, LONG_EPOCHS)
LONGEST = Images("cifar10", 5000, LONGEST_EPOCHS)
SMALL_TABLES = {
    "small-data": small_data("cifar10"),
    "carry-over": carry_over(),
}
TABLES = {  # what is run besides the stages; the report shows those before the small ones as headlines
    "longest": longest_schedule(LONGEST),
    "long": long_schedule(LONG),
    "better-annotator": better_annotator(images("cifar10", 5000)),
    "annotators": annotator_table(images("cifar10", 1000)),
    **SMALL_TABLES,
}
