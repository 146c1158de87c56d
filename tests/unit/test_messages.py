"""Whatever a message quotes is cut, and pydantic's own words stay away."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from stic_eval.cli.app import invoke
from stic_eval.errors import fault_of
from stic_eval.experiment.progress import Reporter
from stic_eval.images import ImageError
from stic_eval.library_messages import hub_requests_in_log

LONG = "x" * 200_000


class Field(BaseModel):
    value: str

    @field_validator("value")
    @classmethod
    def _refuse(cls, value: str) -> str:
        assert value != "a", "Give\nanother"
        raise ValueError(f"Is {value}")


@pytest.mark.parametrize(("value", "said"), [("b", "is b"), ("a", "give")])
def test_a_field_s_fault_is_the_validator_s_own_words(value: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Field(value=value)
    assert fault_of(caught.value.errors()[0]) == said


def test_a_field_s_fault_is_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        Field(value=LONG)
    assert len(fault_of(caught.value.errors()[0])) < 600


def test_an_image_s_name_is_cut() -> None:
    assert len(str(ImageError(LONG, "is missing"))) < 300


def test_requests_to_the_hub_that_are_sent_again_are_in_the_log_and_a_line_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub.utils._http as requests

    printing = logging.StreamHandler(sys.stderr)  # as the client's own, of another moment's stderr
    logging.getLogger("huggingface_hub").addHandler(printing)
    try:
        with hub_requests_in_log(), Reporter(tmp_path / "run.log"):
            requests.logger.warning("Retrying in 1s")
            requests.logger.warning("Retrying in 4s")
        assert capsys.readouterr().err.splitlines() == [
            "the Hugging Face hub does not answer; trying again (--offline asks nobody)"
        ]
        assert (tmp_path / "run.log").read_text().count("Retrying in 1s") == 1
        requests.logger.warning("Retrying in 2s")
        assert "Retrying in 2s" in capsys.readouterr().err
    finally:
        logging.getLogger("huggingface_hub").removeHandler(printing)


COMMANDS = [
    ["run", "--images", "FILE"], ["run", "--prompts", "FILE"], ["ablate", "FILE"],
    ["run", "--config", "FILE"], ["run", "--images", LONG[:5000]],
    ["import", "pairs", "FILE"], ["score", "chartqa", "--predictions", "FILE"],
    ["run", "-o", f"seeds={LONG}"], ["run", "--limit", LONG], ["run", "-o", f"lora.r={LONG}"],
    ["run", "--method", "sft", "--sft-data", "FILE"],
]  # fmt: skip
TEXTS = [f'["{LONG}"]', f'{{"image": "{LONG}"}}', f'[{{"image": "{LONG}", "chosen": "{LONG}"}}]', LONG]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words)[:30])
def test_no_command_quotes_a_file_at_length(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(TEXTS if "FILE" in command else TEXTS[:1]):
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        code = invoke([str(file) if word == "FILE" else word for word in command])
        out, err = capsys.readouterr()
        assert code == 2, err[:500]
        assert max(map(len, (out + err).splitlines())) < 1500
        assert "Value error" not in out + err
