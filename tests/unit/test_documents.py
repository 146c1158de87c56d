"""Files and texts that nobody would write, and somebody sends: refused in one line, and before they cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval import documents
from stic_eval.documents import from_json, from_yaml, open_regular, read_bytes, read_text

ALIASES = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "nested too deeply"),
        ("[" * 102 + "]" * 102, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply"),
        (ALIASES, "more than 100,000 values"),
        ("a: !!timestamp soon", "constructor"),
        ("a: !!bool soon", "soon"),
        ("a: !!int ''", "index"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 0x" + "f" * 5000, "too many digits"),
        ("a: !!python/object/apply:os.system [ls]", "constructor"),
        ("a: !!binary aGk=", "constructor"),
        ("? [a]\n: b", "unhashable"),
        ("a: 1\nb: [0,", r"^line 2, column 7: .*expected .* \(while parsing a flow \w+\)$"),
    ],
    ids=range(13),
)
def test_yaml_that_is_no_settings(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_yaml(text)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_yaml_of_the_kinds_that_json_has() -> None:
    text = "{day: 2020-01-01, none: ~, yes: [true, 1, 1.5, .inf, '5'], late: 2020-13-45}"
    found = from_yaml(text)
    assert found == {
        "day": "2020-01-01", "none": None, True: [True, 1, 1.5, float("inf"), "5"], "late": "2020-13-45",
    }  # fmt: skip
    assert from_yaml("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 200 + "]" * 200, "9" * 5000, f"[{'9' * 400}]", "[", ""])
def test_json_that_nothing_could_compute_with(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


def test_long_digits_in_a_text_are_a_text() -> None:
    assert from_json(f'["{"9" * 400}", 1e400]') == ["9" * 400, float("inf")]
    assert from_json(b'{"a": [' + b"[1], " * 200 + b"2]}")["a"][-1] == 2


def test_devices_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # without a writer: whoever opened it as a file would wait for ever
    (tmp_path / "circle").symlink_to("circle")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path, tmp_path / "circle", tmp_path / "a\0b"):
        with pytest.raises(OSError, match=r".") as caught:
            open_regular(path)
        assert caught.value.strerror


def test_no_more_is_read_than_a_file_may_have(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # of a terabyte nothing is there but its length
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_bytes(large, documents.SETTINGS_BYTES)


def test_texts_are_read_as_python_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path) == path.read_text(encoding="utf-8-sig") == "a\nb\nc\n"


@given(st.text("a\n\r\u2028\x0b\ufeffé", max_size=30))
def test_lines_one_by_one_are_those_of_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(text.encode())
    whole = read_text(path)
    expected = whole.removesuffix("\n").split("\n") if whole else []
    assert list(documents.read_lines(path)) == expected
