"""Rows from every source give the same samples."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import AliasChoices, BaseModel, Field, field_validator

from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark, HubId
from stic_eval.errors import UserError
from stic_eval.evals.rows import ListRows
from stic_eval.evals.sources import images_of, samples, samples_without_images
from stic_eval.images import ImageError
from stic_eval.types import Sample


def encoded(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (level, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def chart_rows(n: int = 3) -> list[dict[str, Any]]:
    return [
        {"type": "human_test", "question": f"How many {i}?", "answer": str(i), "image": encoded(i)}
        for i in range(n)
    ]


def chartqa() -> Benchmark:
    return registry.benchmarks().get("chartqa")


def mmbench() -> Benchmark:
    return registry.benchmarks().get("mmbench")


def save_jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "test.jsonl") -> Path:
    (folder / "images").mkdir(exist_ok=True)
    with (folder / name).open("w", encoding="utf-8") as file:
        for i, row in enumerate(rows):
            (folder / "images" / f"{i}.png").write_bytes(row["image"])
            file.write(json.dumps({**row, "image": f"images/{i}.png"}) + "\n")
    return folder / name


def dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    features = Features(
        {name: Value("string") for name in ("type", "question", "answer")} | {"image": ImageFeature()}
    )
    cells = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    return Dataset.from_list(cells, features=features)


@pytest.fixture(params=["jsonl", "json", "parquet", "hub layout", "saved", "saved with splits", "arrow"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    rows = chart_rows()
    other = [{**row, "question": "another split"} for row in rows]
    match request.param:
        case "jsonl":
            save_jsonl(tmp_path, rows)
        case "json":
            save_jsonl(tmp_path, rows)
            lines = (tmp_path / "test.jsonl").read_text().splitlines()
            (tmp_path / "test.jsonl").unlink()
            (tmp_path / "test.json").write_text("[" + ",".join(lines) + "]")
        case "parquet":
            dataset(rows).to_parquet(tmp_path / "rows.parquet")
        case "hub layout":
            (tmp_path / "data").mkdir()
            dataset(rows[:2]).to_parquet(tmp_path / "data" / "test-00000-of-00002.parquet")
            dataset(rows[2:]).to_parquet(tmp_path / "data" / "test-00001-of-00002.parquet")
            dataset(other).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
        case "saved":
            dataset(rows).save_to_disk(tmp_path)
        case "saved with splits":
            from datasets import DatasetDict

            DatasetDict({"train": dataset(other), "test": dataset(rows)}).save_to_disk(tmp_path)
        case "arrow":
            dataset(rows).save_to_disk(tmp_path / "x")
            (tmp_path / "x" / "state.json").rename(tmp_path / "x" / "state.txt")
    return tmp_path


def test_every_format_gives_the_same_samples(folder: Path) -> None:
    found = samples(chartqa(), folder)
    assert [(s.id, s.question.split("\n")[0], s.target) for s in found] == [
        (str(i), f"How many {i}?", str(i)) for i in range(3)
    ]
    assert [s.images[0].load().getpixel((0, 0)) for s in found] == [(i, 9, 9) for i in range(3)]
    assert len({s.images[0].sha256 for s in found}) == 3


def test_encoded_images_have_one_hash_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save_jsonl(tmp_path / "a", chart_rows())
    dataset(chart_rows()).to_parquet(tmp_path / "test.parquet")
    hashes = [
        [s.images[0].sha256 for s in samples(chartqa(), path)]
        for path in (tmp_path / "a", tmp_path / "test.parquet")
    ]
    assert hashes[0] == hashes[1]


def test_a_table_of_other_content_is_read_again_however_old_it_looks(tmp_path: Path) -> None:
    """`datasets` knows what it has read before by path and time alone."""
    path = tmp_path / "test.parquet"
    for number in (1, 2):
        dataset([{**row, "answer": f"{number}"} for row in chart_rows()]).to_parquet(path)
        os.utime(path, ns=(10**18, 10**18))
        assert {sample.target for sample in samples(chartqa(), path)} == {f"{number}"}


class Hub:
    """The hub and its local cache, in place of the client's functions; data sets are folders.

    Attributes:
        there: Id -> its folder, or what the client raises.
        cached: Ids that the local cache has.
        redirects: Id -> the one that the hub knows it under.
        asked: Ids that were asked for over the network, in order.
        lines: What was told.
        used: What rows were had under.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        self.folder, self.there, self.cached = folder, dict[str, Path | Exception](), set[str]()
        self.redirects, self.asked, self.lines = dict[str, str](), list[str](), list[str]()
        self.used: list[tuple[str, str]] = []
        self.wanted: dict[str, Any] = {}
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", self.info)
        self.offline = partial(monkeypatch.setattr, constants, "HF_HUB_OFFLINE")
        self.offline(False)

    def put(self, path: str, rows: list[dict[str, Any]], cached: bool = False) -> None:
        folder = self.folder / path / "snapshots" / COMMIT
        (folder / "data").mkdir(parents=True)
        dataset(rows).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
        self.there[path] = folder
        self.cached |= {path} if cached else set()

    def download(self, path: str, *, local_files_only: bool = False, **options: Any) -> str:
        self.wanted = options
        if local_files_only or huggingface_hub_is_offline():
            if path not in self.cached:
                raise FileNotFoundError(path)
        else:
            self.asked.append(path)
        found = self.there.get(path, OSError(f"404 {path}\nmore"))
        if isinstance(found, Exception):
            raise found
        return str(found)

    def info(self, path: str, **options: Any) -> Any:
        return SimpleNamespace(id=self.redirects.get(path, path))

    def rows(self, benchmark: Benchmark | None = None) -> list[Sample]:
        def use(at: HubId, lines: Sequence[str]) -> None:
            self.used.append((at.path, at.revision))
            self.lines += lines

        return samples(benchmark or chartqa(), hub_use=use)


def huggingface_hub_is_offline() -> bool:
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


COMMIT = "0123456789abcdef" * 2 + "01234567"
NEW, OLD = "lmms-lab-encoder/ChartQA", "lmms-lab/ChartQA"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path, monkeypatch)


def test_the_hub_is_asked_for_the_pinned_split_only(hub: Hub) -> None:
    hub.put(NEW, chart_rows())
    assert len(hub.rows()) == 3
    assert (hub.asked, hub.lines, hub.used) == ([NEW], [], [(NEW, COMMIT)])
    assert hub.wanted["revision"] == chartqa().source.revision != "main"
    assert hub.wanted["allow_patterns"] == ["data/test-*.parquet"]


@pytest.mark.parametrize("offline", [False, True])
def test_a_copy_under_a_former_id_is_as_good(hub: Hub, offline: bool) -> None:
    hub.put(NEW, chart_rows())
    hub.put(OLD, chart_rows(), cached=True)
    hub.offline(offline)
    assert len(hub.rows()) == 3
    assert (hub.asked, hub.used) == ([], [(OLD, COMMIT)])
    assert hub.lines == [f"chartqa: rows of the local cache under a former id, {OLD} (now {NEW})"]


def test_a_cached_copy_under_the_newest_id_comes_first(hub: Hub) -> None:
    hub.put(OLD, chart_rows(), cached=True)
    hub.put(NEW, chart_rows(), cached=True)
    hub.rows()
    assert (hub.asked, hub.used, hub.lines) == ([], [(NEW, COMMIT)], [])


def test_an_id_that_is_gone_is_told_and_the_next_is_tried(hub: Hub) -> None:
    hub.put(OLD, chart_rows())
    assert len(hub.rows()) == 3
    assert (hub.asked, hub.used) == ([NEW, OLD], [(OLD, COMMIT)])
    assert hub.lines == [f"chartqa: {NEW} is not available (OSError: 404 {NEW}); trying {OLD}"]


def test_a_redirect_is_told(hub: Hub) -> None:
    hub.put(OLD, chart_rows())
    hub.redirects[OLD] = "lmms-lab-third/ChartQA"
    hub.rows()
    assert hub.lines[1:] == [
        f"chartqa: {OLD} has moved to lmms-lab-third/ChartQA on the hub, which answers for it"
    ]


def test_a_copy_that_is_cut_short_is_no_reason_to_stop(hub: Hub) -> None:
    hub.put(NEW, chart_rows())
    hub.put(OLD, chart_rows(), cached=True)
    folder = hub.there[OLD]
    assert isinstance(folder, Path)
    (folder / "data" / "test-00000-of-00001.parquet").rename(folder / "data" / "test-00000-of-00002.parquet")
    assert len(hub.rows()) == 3
    assert (hub.asked, hub.used) == ([NEW], [(NEW, COMMIT)])
    hub.offline(True)
    with pytest.raises(UserError, match="test-00001-of-00002 is missing"):
        hub.rows()


def test_a_branch_is_asked_for_again_unless_offline(hub: Hub) -> None:
    moving = replace(chartqa(), source=replace(chartqa().source, revision="main", former=()))
    hub.put(NEW, chart_rows(), cached=True)
    hub.rows(moving)
    assert hub.asked == [NEW]
    hub.offline(True)
    hub.rows(moving)
    assert hub.asked == [NEW]
    assert hub.used == [(NEW, COMMIT)] * 2  # the commit that it came to


def test_no_hub_is_one_line(hub: Hub) -> None:
    hub.there |= {path: OSError("no route to host\nmore") for path in (NEW, OLD)}
    with pytest.raises(
        UserError,
        match=rf"^chartqa: cannot get from the hub {NEW}, .* no route to host; nor {OLD}, .* no route to "
        r"host \(or give a local copy",
    ):
        hub.rows()


def test_without_a_network_one_line_says_what_to_do(hub: Hub) -> None:
    unreachable = FileNotFoundError("Got: ConnectError: [Errno 111]")
    unreachable.__cause__ = ConnectionRefusedError()
    hub.there |= dict.fromkeys((NEW, OLD), unreachable)
    with pytest.raises(
        UserError,
        match=rf"^chartqa: the hub cannot be reached, and {NEW}, split test, is not in the local cache; "
        "give a local copy: `score --rows FILE`",
    ):
        hub.rows()
    assert (hub.asked, hub.lines) == ([NEW], [])


def test_what_a_plan_says_of_the_hub(hub: Hub) -> None:
    from stic_eval.evals.hub import plan_source

    source = chartqa().source
    assert plan_source(source) == (HubId(NEW, source.revision), False)
    hub.put(OLD, chart_rows(), cached=True)
    assert plan_source(source) == (HubId(OLD, source.revision), True)
    assert hub.asked == []


# ---------------------------------------------------------------- TSV


def save_tsv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def tsv_row(index: int, image: str, **changes: str) -> dict[str, str]:
    row = {
        "index": str(index), "question": 'Which "colour"?', "hint": "", "A": "red", "B": "blue", "C": "",
        "D": "", "answer": "A", "category": "x", "l2-category": "coarse_perception", "image": image,
    }  # fmt: skip
    return row | changes


def test_tsv_rotations_share_an_image_by_index(tmp_path: Path) -> None:
    path = save_tsv(
        tmp_path / "a.tsv", [tsv_row(7, base64.b64encode(encoded(5)).decode()), tsv_row(1_000_007, "7")]
    )
    first, second = samples(mmbench(), path)
    assert first.images == second.images
    assert first.images[0].load().getpixel((0, 0)) == (5, 9, 9)
    assert first.question.startswith('Which "colour"?\nA. red\nB. blue\nAnswer')


PICTURE = base64.b64encode(encoded(5)).decode()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([tsv_row(7, "8")], 'row 1: column "image": of row 8: there is no such row, or it has no image'),
        ([tsv_row(7, "!" * 100)], r'row 1: column "image": .*#7: is not base64'),
        ([tsv_row(7, PICTURE, answer="C")], "row 1: column \"answer\" is 'C', but the options are A, B"),
        ([tsv_row(7, PICTURE), tsv_row(7, PICTURE)], "rows 1 and 2 have the same id 7"),
        ([tsv_row(7, PICTURE), tsv_row(8, "")], 'row 2: column "image" is empty'),
        ([tsv_row(7, PICTURE, question=" ")], 'row 1: column "question" is empty'),
        ([{"question": "x"}], 'column "index" is missing'),
    ],
)
def test_a_bad_tsv_row_is_named(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        samples(mmbench(), save_tsv(tmp_path / "a.tsv", rows))


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ('{"question": "x"}\n{"question"', r"row 2: test\.jsonl, line 2: is not valid JSON"),
        ("[1]", "expected one JSON object per row"),
        ('{"question": "x", "answer": "1", "type": "human_test"}', 'row 1: column "image" is missing'),
        (
            '{"question": "x", "answer": "1", "type": "human_test", "image": "no.png"}',
            'row 1: column "image": no.png: no such file',
        ),
        ('{"question": "x", "answer": "1", "type": "human_test", "image": "../x.png"}', "lies outside of"),
        (
            '{"question": "x", "answer": "1", "type": "human_test", "image": 5}',
            "an image was expected, not 5",
        ),
    ],
)
def test_a_bad_jsonl_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "x.png").write_bytes(encoded(1))
    (tmp_path / "a" / "test.jsonl").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        samples(chartqa(), tmp_path / "a" / "test.jsonl")
    assert "\n" not in str(caught.value)


def test_wrong_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        samples(chartqa(), tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no parquet"):
        samples(chartqa(), tmp_path)
    (tmp_path / "test.parquet").write_text("this is no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        samples(chartqa(), tmp_path)
    (tmp_path / "test.parquet").rename(tmp_path / "train.parquet")
    with pytest.raises(UserError, match='no file of split "test"'):
        samples(chartqa(), tmp_path)


def test_a_damaged_image_is_reported_when_it_is_used(tmp_path: Path) -> None:
    rows = chart_rows(1)
    rows[0]["image"] = rows[0]["image"][:40]
    dataset(rows).to_parquet(tmp_path / "test.parquet")
    (found,) = samples(chartqa(), tmp_path)
    with pytest.raises(ImageError, match="damaged"):
        found.images[0].load()


def test_images_of_takes_what_datasets_gives() -> None:
    assert images_of(None, "x") == ()
    (ref,) = images_of(Image.new("L", (2, 2)), "x")
    assert images_of(ref, "y") == (ref,)
    with pytest.raises(ValueError, match=r"not 'images/1\.jpg'"):
        images_of("images/1.jpg", "x")


# ---------------------------------------------------------------- limit


@pytest.fixture(scope="module")
def rotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rotations") / "a.tsv"
    sizes = [1 + i % 4 for i in range(20)]
    return save_tsv(
        path, [tsv_row(i + r * 1_000_000, PICTURE) for r in range(4) for i, n in enumerate(sizes) if r < n]
    )


@given(small=st.integers(1, 60), more=st.integers(0, 60))
def test_a_limit_keeps_units_whole_and_grows(rotations: Path, small: int, more: int) -> None:
    everything = [s.id for s in samples(mmbench(), rotations)]
    few = [s.id for s in samples(mmbench(), rotations, limit=small)]
    many = [s.id for s in samples(mmbench(), rotations, limit=small + more)]
    units = {str(int(name) % 1_000_000) for name in few}
    assert few == [name for name in everything if str(int(name) % 1_000_000) in units]
    assert 0 < len(few) <= max(small, 4)
    assert set(few) <= set(many)


def test_a_fraction_is_that_share_and_all_is_all(tmp_path: Path) -> None:
    save_jsonl(tmp_path, chart_rows(40))
    assert len(samples(chartqa(), tmp_path, limit=0.25)) == 10
    assert len(samples(chartqa(), tmp_path, limit=0.001)) == 1
    assert len(samples(chartqa(), tmp_path, limit=500)) == 40
    picked = [int(s.id) for s in samples(chartqa(), tmp_path, limit=10)]
    assert picked == sorted(picked) != list(range(10))
    assert [s.question for s in samples(chartqa(), tmp_path) if int(s.id) in picked] == [
        s.question for s in samples(chartqa(), tmp_path, limit=10)
    ]


@pytest.mark.parametrize("limit", [0, -1, 1.5])
def test_a_limit_that_means_nothing_is_refused(tmp_path: Path, limit: float) -> None:
    save_jsonl(tmp_path, chart_rows())
    with pytest.raises(UserError, match="--limit"):
        samples(chartqa(), tmp_path, limit=limit)


# ---------------------------------------------------------------- what does not fit


class Row(BaseModel):
    """As the benchmarks declare theirs."""

    name: str = Field("", validation_alias=AliasChoices("name", "title"))
    sizes: list[int] = Field(validation_alias=AliasChoices("sizes", "lengths"))
    about: dict[str, int]

    @field_validator("name")
    @classmethod
    def _there(cls, name: str) -> str:
        if not name:
            raise ValueError("is empty")
        return name


def modelled() -> Benchmark:
    def to_sample(row: Any) -> Sample:
        read = Row.model_validate(row)
        return Sample(read.name, (), "?", read.sizes)

    return replace(chartqa(), to_sample=to_sample, images=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sizes": [1]}, 'row 1: column "about" is missing'),
        ({"about": {}}, 'row 1: column "sizes" is missing'),
        ({"title": "", "sizes": [], "about": {}}, 'row 1: column "title" is empty'),
        (
            {"lengths": [1, "x"], "about": {}},
            'row 1: column "lengths.1": input should be a valid integer, unable to parse string as an '
            "integer, not 'x'",
        ),
        (
            {"sizes": "y" * 200, "about": {"a": None}},
            f'row 1: column "sizes": input should be a valid list, not \'{"y" * 56}... (and 1 more)',
        ),
    ],
)
def test_a_schema_names_the_column_as_the_file_has_it(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError) as caught:
        samples(modelled(), tmp_path / "a.jsonl")
    hint = " (`stic-eval data check` names every such row)"
    assert str(caught.value) == f"chartqa: {tmp_path / 'a.jsonl'}: {message}{hint}"


def test_an_object_of_rows_keeps_its_keys_and_a_list_under_data_is_the_rows(tmp_path: Path) -> None:
    named = replace(modelled(), to_sample=lambda row: Sample(row["id"], (), "?", row["x"]))
    (tmp_path / "a.json").write_text(json.dumps({"k": {"x": 1}, "l": {"x": 2, "id": "own"}}))
    assert [(s.id, s.target) for s in samples(named, tmp_path / "a.json")] == [("k", 1), ("own", 2)]
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": [{"x": 1, "id": "a"}]}))
    assert [(s.id, s.target) for s in samples(named, tmp_path / "b.json")] == [("a", 1)]


def test_a_row_tells_a_missing_image_from_an_empty_one(tmp_path: Path) -> None:
    seen: list[tuple[bool, Any]] = []

    def to_sample(row: Any) -> Sample:
        seen.append(("image" in row, row["image"]))
        return Sample("", (), "?", None)

    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"image": ""}\n{"image": null}')
    samples(replace(modelled(), to_sample=to_sample), tmp_path / "a.jsonl")
    assert seen == [(False, None), (True, None), (True, None)]


def test_rows_in_memory_are_a_source() -> None:
    rows = [{"type": "human_test", "question": "How many?", "answer": "4"}]
    (found,) = samples(chartqa(), ListRows("the answers' rows", rows), images=False)
    assert found.target == "4"
    with pytest.raises(UserError, match=r'^chartqa: the answers\' rows: row 1: column "answer" is missing'):
        samples(
            chartqa(),
            ListRows("the answers' rows", [{k: rows[0][k] for k in ("type", "question")}]),
            images=False,
        )


def test_offline_says_what_would_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError,
        match=r"^chartqa: lmms-lab-encoder/ChartQA, split test, revision \w+, is not in the local cache "
        r"\(nor under a former id: lmms-lab/ChartQA, split test, revision \w+\); without --offline it would",
    ):
        samples(chartqa())


@pytest.mark.parametrize(
    ("cells", "message"), [(9, "row 1: has 9 cells, but there are 11 columns"), (14, "row 1: has 14 cells")]
)
def test_a_tsv_row_of_another_length_is_named(tmp_path: Path, cells: int, message: str) -> None:
    path = save_tsv(tmp_path / "a.tsv", [tsv_row(7, PICTURE)])
    head, row = path.read_text().splitlines()
    values = (row.split("\t") + ["more"] * 9)[:cells]
    path.write_text("\n".join([head, "\t".join(values)]))
    with pytest.raises(UserError, match=message):
        samples(mmbench(), path)


def test_rows_that_are_only_scored_come_as_they_are_read(tmp_path: Path) -> None:
    path = save_jsonl(tmp_path, chart_rows(2))
    with path.open("a") as file:
        file.write("[]\n")
    found = samples_without_images(chartqa(), path)
    assert [next(found).id, next(found).id] == ["0", "1"]
    with pytest.raises(UserError, match="row 3: expected one JSON object per row"):
        next(found)
    path.write_text("\n")
    with pytest.raises(UserError, match="has no rows"):
        list(samples_without_images(chartqa(), path))
