"""`stic-eval report` up to the browser: what is in the file, what is beside it, what is said."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html as escaping
import io
import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.evals.sources import samples as rows_of
from stic_eval.images import corrupt
from stic_eval.printable import printable
from stic_eval.report import html_report, run_pairs, runs, sample_browser, thumbnails
from stic_eval.report.table_rows import Column
from stic_eval.settings import RunConfig
from stic_eval.store import append_jsonl
from stic_eval.types import DESCRIBED, DIRECT, ImageRef, Summary

FACTS = html_report.PageFacts('<table class="scores"></table>')


class Page(HTMLParser):
    """What a browser makes of the file: scripts by type, blocks, and the tags that there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.blocks: dict[str, str] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.tags: list[str] = []
        self.policy = ""
        self.data = ""
        self._in: tuple[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        assert not [name for name in given if name.startswith("on") or name == "style"]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag in ("script", "style"):
            self._in = (tag, given.get("id") if given.get("type") == "application/gzip" else None)

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in is None:
            self.data += data
        elif self._in[0] == "style":
            self.styles.append(data)
        elif self._in[1] is None:
            self.scripts.append(data)
        else:
            self.blocks[self._in[1].removeprefix("block:")] = data

    def block(self, name: str) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.blocks[name])))


def record(id_: str, **values: Any) -> dict[str, Any]:
    return {
        "id": id_, "question": "?", "images": [], "target": "yes", "group": {}, "description": None,
        "response": "yes", "answer": "yes", "score": 1.0, "weight": 1.0, "why": None, "seconds": 0.0,
        "n_tokens": 1, "meta": {}, "judge": None, **values,
    }  # fmt: skip


ENTRIES = [
    runs.Entry("baseline", "baseline", "Baseline", DIRECT, None),
    runs.Entry("stic@seed0", "stic", "STIC", DIRECT, 0),
    runs.Entry("stic@seed1", "stic", "STIC", DIRECT, 1),
]


def scores(*entries: runs.Entry, **values: Any) -> runs.Scores:
    return runs.Scores("run", [Column("one", "One")], list(entries or ENTRIES), **values)


def put(folder: Path, entry: str, *records: dict[str, Any], benchmark: str = "one") -> None:
    path = folder / "records" / entry / f"{benchmark}.jsonl"
    path.unlink(missing_ok=True)
    append_jsonl(path, records)


def write(
    folder: Path, made: runs.Scores | None = None, facts: html_report.PageFacts = FACTS, **options: Any
) -> Page:
    out = folder / "report.html"
    given = {"refs": {}, "stages": folder / "stages", **options}
    html_report.write(made or scores(), folder, out, facts, **given)
    return Page(out.read_text(encoding="utf-8"))


def text_of(block: dict[str, Any], column: str, row: int) -> str | None:
    number = block[column][row]
    return block["strings"][number] if number >= 0 else None


# ---------------------------------------------------------------- what is in the file


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=9, max_size=9))
def test_any_text_comes_out_as_it_is_and_adds_no_markup(tmp_path: Path, texts: list[str]) -> None:
    id_, question, target, response, answer, why, run, title, model = texts
    put(tmp_path, "baseline",
        record(id_, question=question, target=target, response=response, answer=answer, why=why))  # fmt: skip
    entry = runs.Entry("baseline", "baseline", title, DIRECT, None)
    made = runs.Scores(run, [Column("one", title)], [entry], model=model)
    page = write(tmp_path, made)
    plain = write(tmp_path, runs.Scores("run", [Column("one", "One")], [entry], model="model"))
    assert page.tags == plain.tags
    rows, answers = page.block("rows:one"), page.block("answers:one:baseline")
    assert rows["ids"] == [printable(id_)]
    assert text_of(rows, "question", 0) == printable(question)
    assert text_of(rows, "target", 0) == printable(target)
    given = {"response": response, "answer": answer, "why": why}
    assert {name: text_of(answers, name, 0) for name in given} == {
        name: printable(text) for name, text in given.items()
    }
    assert page.block("meta")["sides"][0]["label"] == printable(title)


def test_policy_allows_what_is_in_the_page_by_its_hash_and_nothing_else(tmp_path: Path) -> None:
    page = write(tmp_path, facts=html_report.PageFacts("", [html_report.SvgFigure("<b>", "<svg/>")]))
    (script,), (style,) = page.scripts, page.styles
    directives = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    digests = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for name, text in (("script-src", script), ("style-src", style))
    }
    assert {name: directives[name] for name in digests} == digests
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"
    assert directives["img-src"] == "data:"
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)
    assert "innerHTML" not in script and not re.search(r"\b(eval|Function)\(", script)


def test_rows_are_aligned_and_what_is_missing_is_not_wrong(tmp_path: Path) -> None:
    put(tmp_path, "baseline", record("a", score=None, why="no judge"), record("b", score=0.5))
    put(tmp_path, "stic@seed0", record("b", weight=0.5, score=0.25), record("c", answer=None, weight=0.0))
    page = write(tmp_path)
    rows = page.block("rows:one")
    assert rows["ids"] == ["a", "b", "c"]
    assert all(len(column) == 3 for name, column in rows.items() if name != "strings")
    base, stic = page.block("answers:one:baseline"), page.block("answers:one:stic@seed0")
    assert base["score"] == [None, 0.5] and text_of(base, "why", 0) == "no judge"
    # Of a weighted row the share of its weight; a weight of nothing has no share.
    assert stic["score"] == [None, 0.5, None]
    assert stic["response"][0] == sample_browser.NO_RECORD and text_of(stic, "answer", 2) is None
    # A seed without records has no block, and says so by that.
    assert "answers:one:stic@seed1" not in page.blocks
    (first, second) = page.block("meta")["sides"]
    assert first["seeds"] == {"": "baseline"} and first["baseline"]
    assert second["seeds"] == {"0": "stic@seed0", "1": "stic@seed1"} and second["key"] == "stic"


def test_what_flips_are_of_unless_another_is_chosen(tmp_path: Path) -> None:
    put(tmp_path, "baseline", record("a"))
    cells = [
        runs.Entry(f"stic+x={x}@seed0", "stic", "STIC", DIRECT, 0, settings={"x": x}) for x in ("high", "low")
    ]
    ablation = scores(ENTRIES[0], *cells, axes={"x": ["high", "low"]})
    meta = write(tmp_path, ablation).block("meta")
    assert [side["label"] for side in meta["sides"]] == ["Baseline", "STIC, x=high", "STIC, x=low"]
    assert meta["compared"] == "stic+x=high"
    assert write(tmp_path).block("meta")["compared"] == "stic"
    assert write(tmp_path, scores(ENTRIES[0])).block("meta")["compared"] is None


def entry(folder: str, **cell: Any) -> runs.Entry:
    """An entry by its folder's name."""
    method = folder.partition("+")[0]
    return runs.Entry(
        folder, method, method.upper(), DESCRIBED if folder.endswith("+dar") else DIRECT, None, settings=cell
    )


def test_columns_shown_first_are_the_baseline_and_the_method(tmp_path: Path) -> None:
    both = [name + dar for name in ("baseline", "sft", "stic_stage1", "stic") for dar in ("", "+dar")]
    assert sample_browser.opening(scores(*map(entry, both))) == ("stic+dar", ["baseline", "stic", "stic+dar"])
    few = both[:2] + both[-2:]
    assert sample_browser.opening(scores(*map(entry, few))) == ("stic+dar", few)
    cells = [entry("baseline"), entry("baseline+dar", x=0), *(entry(f"stic+{x}", x=x) for x in range(6))]
    compared, columns = sample_browser.opening(scores(*cells, axes={"x": list(range(6))}))
    assert compared == "stic+0" and columns == ["baseline", "stic+0", "stic+1", "stic+2"]
    assert sample_browser.opening(scores(entry("baseline"))) == (None, ["baseline"])
    meta = write(tmp_path, scores(*map(entry, both))).block("meta")
    assert meta["columns"] == ["baseline", "stic", "stic+dar"]


def test_cells_that_come_to_the_same_evaluation_have_names_of_their_own(tmp_path: Path) -> None:
    cells = [
        runs.Entry(f"stic+x=1@seed{seed}", "stic", "STIC", DIRECT, seed, settings={"x": x})
        for x in (1, 2, 3)
        for seed in (0, 1)
    ]
    meta = write(tmp_path, scores(*cells, axes={"x": [1, 2, 3]})).block("meta")
    assert [side["key"] for side in meta["sides"]] == ["stic+x=1", "stic+x=1#2", "stic+x=1#3"]
    assert [side["label"] for side in meta["sides"]] == ["STIC, x=1", "STIC, x=2", "STIC, x=3"]


def test_of_a_stage_that_many_share_two_are_named_and_the_others_folded_away(tmp_path: Path) -> None:
    stage = runs.TrainedStage("pairs", "ab" * 32, 1.0, 0, 0)
    entries = [runs.Entry(f"stic@seed{n}", "stic", "STIC", DIRECT, n, stages=[stage]) for n in range(5)]
    page = write(tmp_path, scores(*entries))
    assert "and 3 more" in page.data and page.data.index("stic@seed2") > page.data.index("and 3 more")


def test_heading_is_what_commands_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "pocket" / "ablations" / "mine"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"run": "the run itself"}')
    page = write(folder)
    assert "mine · stic-eval report" in page.data and "the run itself" in page.data
    monkeypatch.chdir(tmp_path)
    assert "pocket/ablations/mine · stic-eval report" in write(folder).data


def test_labels_targets_and_judges_are_readable(tmp_path: Path) -> None:
    judge = {"model": "m", "protocol": "official", "replies": ["7", "8"], "suspect": "speaks to the judge"}
    put(tmp_path, "baseline", record(
        "7", target=["cat"] * 9 + ["a cat"], group={"subject": "animals"}, judge=judge,
        meta={"unit": "3", "question": "What is it?"}, question="Long prompt. What is it?",
    ), record("8", target={"facts": [["é"]]}))  # fmt: skip
    page = write(tmp_path)
    rows, base = page.block("rows:one"), page.block("answers:one:baseline")
    assert text_of(rows, "target", 0) == "cat (9 times), a cat"
    assert text_of(rows, "target", 1) == '{"facts": [["é"]]}'
    assert text_of(rows, "group", 0) == "subject: animals · unit: 3"
    assert text_of(rows, "brief", 0) == "What is it?" and text_of(rows, "brief", 1) == "?"
    said = text_of(base, "judge", 0)
    assert said == "m (official)\n\nsuspect: speaks to the judge\n\n7\n\n8"
    assert text_of(base, "judge", 1) is None


def test_provenance_is_in_the_page_as_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: '</pre><script>x</script>'\n")
    manifest = {"command": ["run", "--model", "a b"], "model": {"name": "<i>m", "dtype": "float32"},
                "versions": {"torch": "2"}, "seconds": 12}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    stage = runs.TrainedStage("<b>pairs", "ab" * 32, 1.25, 2000, 3)
    entries = [runs.Entry(f"stic@seed{n}", "stic", "STIC", DIRECT, n, stages=[stage]) for n in (0, 1)]
    page = write(tmp_path, scores(*entries))
    assert "</pre><script>x</script>" in page.data and "stic-eval run --model 'a b'" in page.data
    assert "<i>m" in page.data and "float32" in page.data and "torch 2" in page.data
    # A stage that two adapters came from is one line.
    assert page.data.count("<b>pairs") == 1 and "stic@seed0, stic@seed1" in page.data and "2,000" in page.data
    # What the last call took says nothing of what was read from the cache.
    assert re.search(r"Last call\s*12 s", page.data) and re.search(r"Stages\s*1 s in all", page.data)
    (tmp_path / "manifest.json").write_text("[1, torn")
    assert "[1, torn" in write(tmp_path).data


def test_figures_are_images_whatever_is_in_them(tmp_path: Path) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>x</script></svg>'
    page = write(
        tmp_path,
        facts=html_report.PageFacts(
            "", [html_report.SvgFigure("Gains", svg)], [html_report.SvgFigure("Loss", svg)]
        ),
    )
    # Each of them twice: for light pages and for dark ones.
    assert page.tags.count("img") == 4 and "svg" not in page.tags
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert escaping.unescape(text).count(base64.b64encode(svg.encode()).decode()) == 2


def test_the_same_run_gives_the_same_file(tmp_path: Path) -> None:
    put(tmp_path, "baseline", record("a"))
    write(tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    write(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == first


# ---------------------------------------------------------------- images


def noise(number: int, side: int = 700) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (side // 2, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def refs(n: int, side: int = 700) -> dict[str, ImageRef]:
    return {f"{i:064x}": ImageRef(f"{i:064x}", f"i{i}", partial(noise, i, side)) for i in range(n)}


def decoded(address: str | None) -> Image.Image:
    assert address is not None and address.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_images_are_as_large_as_the_budget_allows(tmp_path: Path) -> None:
    beside, given = tmp_path / "beside", refs(4)
    rich = thumbnails.make(list(given), given, 10**9, beside)
    poor = thumbnails.make(list(given), given, rich.bytes // 3, beside)
    assert rich.side == thumbnails.SIDES[0] and poor.side < rich.side and poor.bytes <= rich.bytes // 3
    assert max(decoded(rich.addresses[0]).size) == rich.side
    assert max(decoded(poor.addresses[0]).size) == poor.side
    assert not beside.exists()


def test_over_the_budget_images_lie_beside_the_page(tmp_path: Path) -> None:
    given = refs(3)
    same = {**given, "f" * 64: ImageRef("f" * 64, "same as the first", partial(noise, 0))}
    beside = tmp_path / "a 'b' #1_images"
    made = thumbnails.make(["0" * 64, "f" * 64], same, 10, beside)
    assert made.folder == beside and made.missing == 0
    addresses = [address for address in made.addresses if address]
    assert all(address.startswith("a%20%27b%27%20%231_images/") for address in addresses)
    assert sum(file.stat().st_size for file in beside.iterdir()) <= made.bytes
    for address in addresses:
        assert (beside / address.partition("/")[2]).is_file()


def test_images_beside_the_page_go_when_they_are_needed_no_more(tmp_path: Path) -> None:
    put(tmp_path, "baseline", *(record(str(n), images=[f"{n:064x}"]) for n in range(3)))
    beside = tmp_path / "report_images"
    write(tmp_path, refs=refs(3), budget=0)
    assert len(list(beside.glob("*.webp"))) == 3
    (beside / "mine.webp").touch()
    write(tmp_path, refs=refs(3))
    assert [path.name for path in beside.iterdir()] == ["mine.webp"]
    # A folder that somebody else made stays as it is, whatever its files are called.
    (beside / f"{0:032x}.webp").touch()
    write(tmp_path, refs=refs(3))
    assert len(list(beside.iterdir())) == 2
    for path in beside.iterdir():
        path.unlink()
    beside.rmdir()
    write(tmp_path, refs=refs(3), budget=0)
    write(tmp_path, images=False)
    assert not beside.exists()


def test_images_that_are_gone_leave_a_place(tmp_path: Path) -> None:
    def gone() -> Image.Image:
        raise OSError("gone")

    given = {**refs(1, 60), "e" * 64: ImageRef("e" * 64, "gone", gone)}
    made = thumbnails.make(["e" * 64, "0" * 64, "../../etc/passwd"], given, 10**6, tmp_path / "beside")
    assert [address is None for address in made.addresses] == [True, False, True] and made.missing == 2


def test_an_image_that_several_rows_share_is_in_the_file_once(tmp_path: Path) -> None:
    given = refs(3, 60)
    put(tmp_path, "baseline", *(record(str(n), images=[f"{n % 3:064x}"]) for n in range(9)))
    page = write(tmp_path, refs=given)
    assert page.block("rows:one")["images"] == [[n % 3] for n in range(9)]
    assert len(page.block("images:0")) == 3
    without = write(tmp_path, refs=given, images=False)
    assert not [name for name in without.blocks if name.startswith("images:")]


# ---------------------------------------------------------------- preference pairs


def pair_row(n: int, negative: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    noise(n, 64).save(buffer, "PNG")
    turn = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {
        **{name: [{"role": role, "content": f"{name} {n}"}] for name, role in turn.items()},
        "images": [{"bytes": buffer.getvalue(), "path": None}],
        "image_sha256": f"{n:064x}", "source": f"photo {n}", "negative": negative, "seed": n,
    }  # fmt: skip


def put_pairs(stages: Path, key: str, *rows: dict[str, Any]) -> None:
    (stages / f"pairs-{key[:16]}").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), stages / f"pairs-{key[:16]}" / "pairs.parquet")


def trained(key: str, seed: int, title: str = "STIC", **values: Any) -> runs.Entry:
    stage = runs.TrainedStage("pairs", key, 1.0, 2, 0)
    return runs.Entry(f"{title}@seed{seed}", title.lower(), title, DIRECT, seed, stages=[stage], **values)


def test_pairs_come_with_the_image_that_was_asked_about(tmp_path: Path) -> None:
    key = "a1" * 32
    put_pairs(tmp_path, key, pair_row(0, "misleading"), pair_row(1, "jitter"), pair_row(2, "low_res"))
    made = scores(trained(key, 0), trained(key, 0, "Positive only"))
    ((found,), missing) = run_pairs.read(made, tmp_path, 2)
    assert not missing and found.total == 3 and found.label == "seed 0: STIC, Positive only"
    first, second = found.pairs
    assert (first.prompt, first.chosen, first.rejected) == ("prompt 0", "chosen 0", "rejected 0")
    assert first.spoilt is None and second.spoilt is not None
    clean = ImageRef(f"{1:064x}", "photo 1", partial(noise, 1, 64))
    assert second.spoilt.load().tobytes() == corrupt(clean, "jitter", 1).load().tobytes()


def test_pairs_that_are_gone_or_damaged_are_named_on_the_page(tmp_path: Path) -> None:
    gone, torn, empty = "a1" * 32, "b2" * 32, "c3" * 32
    (tmp_path / "stages" / f"pairs-{torn[:16]}").mkdir(parents=True)
    (tmp_path / "stages" / f"pairs-{torn[:16]}" / "pairs.parquet").write_bytes(b"PAR1 torn")
    put_pairs(tmp_path / "stages", empty, pair_row(0, "jitter"))
    made = scores(trained(gone, 0), trained(torn, 1), trained(empty, 2))
    page = write(tmp_path, made)
    assert f"not in this cache ({tmp_path / 'stages'}): seed 0: STIC." in page.data
    assert "seed 1: STIC" in page.data and "cannot be read" in page.data
    assert page.data.index("cannot be read") > page.data.index("What preference training learnt from")
    assert page.block("meta")["pairs"] == [{"label": "seed 2: STIC", "total": 1}]
    none = write(tmp_path, made, n_pairs=0)
    assert not none.block("meta")["pairs"] and "--pairs 0" in none.data and "this cache" not in none.data
    assert "was trained on any" not in write(tmp_path, scores(trained(gone, 0))).data
    assert "nothing in this run was trained on any" in write(tmp_path).data


def test_pairs_are_named_by_what_was_trained(tmp_path: Path) -> None:
    cells = [
        trained("a1" * 32, 0, settings={"stage1.use": True, "x": "\n", "dar": dar}) for dar in ("on", "off")
    ]
    _, (missing,) = run_pairs.read(scores(*cells), tmp_path, 2)
    assert missing.endswith(': seed 0: STIC (stage1.use=true, x="\\n").')


# ---------------------------------------------------------------- the command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of the embedded rows, with records that nobody had to compute."""
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "mine"
    config = RunConfig(benchmarks=("mmvet",), limit=5, output=folder)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml())
    rows = rows_of(registry.benchmarks().get("mmvet"), "pocket", limit=5)
    entries = []
    for entry, right in zip(ENTRIES[:2], (3, 4), strict=True):
        values = [float(n < right) for n in range(5)]
        put(folder, entry.folder, *(
            record(row.id, question=row.question, images=[ref.sha256 for ref in row.images], score=value)
            for row, value in zip(rows, values, strict=True)
        ), benchmark="mmvet")  # fmt: skip
        units = {row.id: (value, 1.0) for row, value in zip(rows, values, strict=True)}
        summary = Summary(20.0 * right, 5, 0, units, {})
        entries.append(runs.Entry(entry.folder, entry.method, entry.title, DIRECT, entry.seed,
                                  {}, {"mmvet": summary}))  # fmt: skip
    runs.save(runs.Scores("mine", [Column("mmvet", "MM-Vet")], entries), folder)
    return folder


def test_command_writes_one_file_and_says_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["report", "mine", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(r"results/mine/report\.html \(\d+ kB\)\n", captured.out) and not captured.err
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert len(page.block("rows:mmvet")["ids"]) == 5
    images = page.block("images:0")
    assert images and all(max(decoded(address).size) == 72 for address in images)
    assert "60.0" in page.data and "80.0" in page.data and "img" in page.tags
    assert sorted(path.name for path in run.iterdir() if "report" in path.name) == ["report.html"]


def test_command_puts_images_beside_the_file_over_the_budget(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "elsewhere" / "it's.html"
    assert invoke(["report", str(run), "--out", str(out), "--image-budget", "0", "-q"]) == 0
    assert "it's_images/" in capsys.readouterr().out
    assert len(list((tmp_path / "elsewhere" / "it's_images").glob("*.webp"))) >= 1
    assert "img-src data: file: 'self'" in Page(out.read_text(encoding="utf-8")).policy
    assert invoke(["report", str(run), "--out", str(out), "--no-images", "-q"]) == 0
    assert Page(out.read_text(encoding="utf-8")).policy.count("img-src data:;")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("model: pocket\nbenchmarks: [mmvet]\nrows: {all: nowhere/at/all}\n", "no images, because its rows"),
        ("model: [1, 2", "the run's config.yaml cannot be used"),
        ("nonsense: 1\n", "the run's config.yaml cannot be used"),
        (None, "the run's config.yaml cannot be used"),
    ],
)
def test_command_without_rows_makes_the_report_without_images(
    run: Path, config: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").unlink()
    if config is not None:
        (run / "config.yaml").write_text(config)
    assert invoke(["report", "mine"]) == 3
    assert said in capsys.readouterr().err
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert said in page.data and len(page.block("rows:mmvet")["ids"]) == 5
    assert invoke(["report", "mine", "--no-images", "-q"]) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nothing"], 'no run is called "nothing"'),
        (["mine", "--out", "."], "--output .: is a folder"),
        (["mine", "--image-budget", "-1"], "image-budget"),
        (["mine", "--pairs", "-1"], "pairs"),
    ],
)
@pytest.mark.usefixtures("run")
def test_mistakes_are_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["report", *argv, "-q"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_damaged_records_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "records" / "baseline" / "mmvet.jsonl").write_text("{}\nnonsense\n{}\n")
    assert invoke(["report", "mine", "-q"]) == 2
    err = capsys.readouterr().err
    assert "records/baseline/mmvet.jsonl, line 2" in err and err.count("\n") == 1
    assert not (run / "report.html").exists()


def test_open_goes_to_the_browser(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert invoke(["report", "mine", "-q", "--open"]) == 0
    assert opened == [(run / "report.html").resolve().as_uri()]
