"""What a run says of input files that it leaves out: why most of them are, and everything once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stic_eval.cli.app import invoke
from stic_eval.errors import UserError
from stic_eval.experiment import inputs
from stic_eval.image_sources import scan_images
from stic_eval.images import ImageError, Skipped, image_ref
from stic_eval.training.instruction_data import read_items


class Lines:
    """Takes a report's lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, line: str) -> None:
        """Takes one."""
        self.lines.append(line)


def item(number: int, images: object) -> dict[str, object]:
    said = "<image>" * (len(images) if isinstance(images, list) else 1)
    turns = [{"from": "human", "value": f"{said}What?"}, {"from": "gpt", "value": "A cat."}]
    return {"id": number, "image": images, "conversations": turns}


def test_missing_files_come_before_the_commonest_other_reason(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    path.write_text(json.dumps([item(n, ["a.png", "b.png"]) for n in range(5)] + [item(9, "c.png")]))
    _, skipped = read_items(str(path))
    assert inputs.commonest(skipped) == (
        f"c.png: no such file: {tmp_path}/c.png (--image-root names the folder that paths start at); 5 more"
    )


def test_the_commonest_reason_stands_for_all() -> None:
    found = [Skipped(f"{n}.png", reason) for n, reason in enumerate(["empty file", "has 2 images; one is "
             "expected", "has 3 images; one is expected"])]  # fmt: skip
    assert inputs.commonest(found) == "1.png: has 2 images; one is expected; 2 more"
    assert inputs.commonest(found[:1]) == "0.png: empty file"


def test_paths_and_hints_are_said_once(tmp_path: Path) -> None:
    names, root = tmp_path / "names.txt", tmp_path / "root"
    names.write_text("a.png\nb.png\n")
    root.mkdir()
    _, skipped = scan_images(names, root=root)
    said = Lines()
    inputs.report_skipped(skipped, said)  # type: ignore[arg-type]
    hint = "(--image-root names the folder that names start at)"
    assert said.lines == [
        "2 input files skipped, listed in skipped.jsonl:",
        f"  a.png: no such file: {root}/a.png or {tmp_path}/a.png {hint}",
        "  b.png: no such file",
    ]
    one = Lines()
    inputs.report_skipped(skipped[:1], one)  # type: ignore[arg-type]
    assert one.lines[0].startswith("1 input file skipped, ")


def test_a_relative_root_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=f"lies outside of {tmp_path} "):
        image_ref("/etc/hostname", ".", "--image-root")


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_a_root_of_rows_that_is_not_there_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, more = tmp_path / "nix", ["--output", str(tmp_path / "new")] if command == "prepare" else []
    words = ["data", command, "chartqa", "--from", "pocket", "-o", f"rows.chartqa.root={root}", *more]
    assert invoke(words) == 2
    assert capsys.readouterr().err == f"stic-eval: -o rows.chartqa.root={root}: no such folder\n"


@pytest.mark.parametrize(
    "given",
    ["nosuch/dataset", "hf:nosuch/dataset", "hf://datasets/nosuch/dataset",
     "https://huggingface.co/datasets/nosuch/dataset"],
)  # fmt: skip
def test_a_data_set_of_the_hub_is_to_be_downloaded(given: str) -> None:
    with pytest.raises(UserError, match="give DIR of hf download nosuch/dataset --repo-type dataset"):
        scan_images(given)
