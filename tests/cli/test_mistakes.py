"""What newcomers get wrong on the command line is answered with the place and the remedy, and with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmdsl.source.limits import MAXIMUM_BYTES
from vlmdsl_cli.main import main

RECIPE = "vlo 1\n\nminimize contrast(image, text)\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.vlo").mkdir()
    for name in ("mine.vlo", "mine.txt", "lib/other.vlo"):
        (tmp_path / name).write_text(RECIPE)
    (tmp_path / "large.vlo").write_bytes(b"a" * (MAXIMUM_BYTES + 7))
    (tmp_path / "binary.vlo").write_bytes(b"\x89PNG\r\n\xff\x00")
    (tmp_path / "nothing.vlo").write_text("")
    os.mkfifo(tmp_path / "pipe.vlo")
    monkeypatch.chdir(tmp_path)


MISTAKES = {
    # the recipe is not there
    ("check", "clp"): ["no recipe `clp`", "did you mean `clip`?"],
    ("check", "Clip"): ["did you mean `clip`?"],
    ("check", "clip.vlo"): ["`clip` is a bundled recipe; its name has no `.vlo`"],
    ("check", "siglip.yaml"): ["`siglip` is a bundled recipe; its name has no `.yaml`"],
    ("check", "mime.vlo"): ["mime.vlo: No such file", "did you mean `mine.vlo`?"],
    ("check", "lib/othr.vlo"): ["lib/othr.vlo: No such file", "did you mean `lib/other.vlo`?"],
    ("check", "lib/other"): ["did you mean `lib/other.vlo`?"],
    ("check", "absent/mine.txt"): ["no recipe `absent/mine.txt`", "`vlmdsl recipes` lists"],
    ("check", "https://h.org/a.vlo"): ["no recipe `https://h.org/a.vlo`", "download it first"],
    ("emit", "clip,siglip"): ["no recipe `clip,siglip`"],
    ("train", "recipes/clip"): ["no recipe `recipes/clip`"],
    # it is something else
    ("check", ""): ["the name is empty"],
    ("emit", " "): ["the name is empty"],
    ("diff", "clip", ""): ["the name is empty"],
    ("check", "empty"): ["no .vlo file", "'empty'"],
    ("fmt", "dir.vlo"): ["no .vlo file", "'dir.vlo'"],
    ("emit", "lib"): ["`lib` is a folder", "`lib/other.vlo`"],
    ("plan", "empty"): ["no recipe `empty`", "regular file"],
    ("explain", "dir.vlo"): ["it is a folder"],
    ("check", "pipe.vlo"): ["it is not a regular file", "`vlmdsl check -` reads standard input"],
    ("plan", "/dev/zero"): ["no recipe `/dev/zero`", "regular file"],
    ("fmt", "clip"): ["`clip` is a bundled recipe; here the path of a file is expected"],
    ("check", "large.vlo"): [f"this file has {MAXIMUM_BYTES + 7:,} bytes; the limit for a recipe is {MAXIMUM_BYTES:,}"],
    ("check", "binary.vlo"): ["binary.vlo:1:1", "not UTF-8"],
    ("check", "nothing.vlo"): ["nothing.vlo:1:1", "the smallest program"],
    # the words around it
    (): ["check", "train"],
    ("chek", "clip"): ["no command 'chek'", "did you mean `check`?"],
    ("help",): ["no command 'help'", "train", "classify"],
    ("check",): ["give a RECIPE"],
    ("explain",): ["give either RECIPE or -e EXPRESSION"],
    ("emit", "clip", "-e", "contrast(image, text)"): ["give either RECIPE or -e EXPRESSION"],
    ("diff", "clip"): ["Missing argument 'RECIPE'"],
    ("explain", "clip", "siglip"): ["unexpected extra argument (siglip)"],
    ("recipes", "clip"): ["unexpected extra argument (clip)"],
    ("check", "-e"): ["'-e' requires an argument"],
    ("check", "clip", "--parm", "temperature=1"): ["No such option '--parm'", "--param"],
    ("check", "clip", "--param", "temperature"): ["--param takes NAME=VALUE, not 'temperature'"],
    ("check", "clip", "--param", "=1"): ["--param takes NAME=VALUE, not '=1'"],
    ("check", "clip", "--param", "a=1", "--param", "a=2"): ["--param a is given twice"],
    ("check", "clip", "--param", "temprature=1"): ["no hyper-parameter `temprature`", "did you mean `temperature`?"],
    ("check", "clip", "--param", "temperature=warm"): ["hyper-parameter `temperature`: expected a number, not 'warm'"],
    ("check", "clip", "--param", "temperature="): ["hyper-parameter `temperature`: expected a number, not ''"],
    ("check", "clip", "--format", "xml"): ["'xml' is not one of 'text', 'json', 'github'"],
    ("check", "--fix", "-"): ["--fix changes files; give paths"],
    ("explain", "tokenmx"): ["did you mean `tokenmax`?"],
    ("explain", "settngs"): ["did you mean `settings`?"],
    ("explain", "train.btach"): ["did you mean `train.batch`?"],
    ("explain", "V9999"): ["no recipe `V9999`", "a diagnostic code (V0304)"],
    ("explain", "V0304", "--latex"): ["V0304 has no formula"],
    ("plan", "clip", "--batch", "0"): ["'--batch': 0 is not in the range x>=1"],
    ("plan", "clip", "--batch", "4k"): ["'--batch': '4k' is not a valid integer"],
    ("plan", "clip", "--batch", "100", "--world", "3"): ["take 99 or 102 samples"],
    ("plan", "clip", "--dtype", "fp32"): ["'fp32' is not one of", "'float32'"],
    ("plan", "clip", "--dump", "foldd"): ["no pass is called `foldd`", "possible: ir, fold"],
    ("train", "clip", "--steps", "x"): ["'--steps': 'x' is not a valid integer"],
    ("train", "clip", "--config", "absent.yaml"): ["`absent.yaml` cannot be read: file not found"],
    ("train", "clip", "--config", "empty"): ["`empty` cannot be read: file is not a regular file"],
    ("train", "clip", "--config", "pipe.vlo"): ["`pipe.vlo` cannot be read: file is not a regular file"],
    ("train", "clip", "--config", "/dev/zero"): ["`/dev/zero` cannot be read: file is not a regular file"],
    ("train", "clip", "--config", "binary.vlo"): ["`binary.vlo` cannot be read: it is not text in UTF-8"],
    ("train", "clip", "--config", "large.vlo"): ["large.vlo"],
    ("train", "clip", "--set", "batch"): ["expects SECTION.SETTING=VALUE, not `batch`"],
    ("train", "clip", "--set", "train.btach=3"): ["did you mean `train.batch`?"],
    ("eval",): ["Missing argument 'RUN_DIR'"],
    ("compare",): ["give at least one RECIPE or -e EXPRESSION"],
    ("compare", "clip", "--param", "slip.out=1"): ["'slip', which is not among the recipes"],
    ("--verison",): ["No such option '--verison'", "--version"],
}


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: " ".join(words) or "nothing")
def test_a_mistake_is_answered_with_place_and_remedy(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words)
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2, said
    assert [part for part in MISTAKES[words] if part not in said] == [], said
    assert "Traceback" not in said
    assert "has a bug" not in said


@pytest.mark.parametrize("command", ["check - <&-", "fmt - <&-", "check clp 2>&-", "check clp 2>/dev/full"])
def test_closed_and_full_streams_are_not_a_bug(command: str) -> None:
    run = [sys.executable, "-m", "vlmdsl"]
    done = subprocess.run(["bash", "-c", f'"$@" {command}', "bash", *run], capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 3), done.stderr
    assert "bug" not in done.stderr


def test_a_file_needs_no_ending(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.txt", "lib"]) == 0
    assert "2 recipes are correct" in capsys.readouterr().err
