"""Options as tyro shows them: grouped, readable, and passed on as they were given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import tyro

from tokenlabel.cli.main import VERBS, main
from tokenlabel.cli.options import call


def shown(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_nothing_of_none(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(verb, capsys)
    assert "default: None" not in text
    assert "default: )" not in text
    assert "{None" not in text
    for block in re.split(r"\n\W*--", text):
        assert block.count("(default:") <= 1


@pytest.mark.parametrize("verb", ["train", "teach", "segment train"])
def test_options_of_training_verbs_are_grouped(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(verb, capsys)
    places = [text.index(f"{name} options") for name in ("data", "model", "schedule", "machine")]
    assert places == sorted(places)
    assert text.index("--lr ") > places[2]
    assert text.rindex("--data ") > places[0]


def verb(
    name: Annotated[str, tyro.conf.Positional],
    *,
    data: Path,
    epochs: int | None = None,
    lr: float = 0.5,
    workers: int | None = None,
    flags: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> dict[str, Any]:
    """Do it.

    Args:
        name: what to
            do.
        data: where.
    """
    return {**locals()}


def test_a_verb_gets_what_was_given_and_its_own_defaults() -> None:
    words = ["it", "--data", "here", "--epochs", "3", "--flags", "a", "--flags", "b"]
    assert call(verb, prog="verb", words=words) == {
        "name": "it", "data": Path("here"), "epochs": 3, "lr": 0.5, "workers": None,
        "flags": ("a", "b"),
    }  # fmt: skip


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(verb, prog="verb", words=["it"])
    assert ended.value.code == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--words 0", "--words 0: it must be greater than or equal to 1"),
        ("--patches 0", "--patches 0: it must"),
        ("--perplexity 0.5", "--perplexity 0.5: it must be greater than or equal to 1"),
        ("--perplexity nan", "--perplexity nan: it must be a finite number"),
        ("--top-k 0", "--top-k 0: it must"),  # of a dataclass in a dataclass
        ("--batch-size 0", "batch_size and shard_size must be at least 1"),
        ("--shard-size -1", "batch_size and shard_size must be at least 1"),
    ],
)
def test_a_value_that_no_option_takes_is_one_line(words, said, tmp_path, capsys) -> None:
    output = tmp_path / "store"
    command = f"annotate words --data photos --output {output} --model resnet10t {words}"
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not output.exists()
