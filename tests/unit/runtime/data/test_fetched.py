"""Shards at a URL, and compressed ones: copied once, as a whole, within a limit, and read like any other."""

from __future__ import annotations

import bz2
import functools
import gzip
import http.server
import importlib
import lzma
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data import Limits, open_source, open_stream
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS

PACKERS = {"gz": functools.partial(gzip.compress, mtime=0), "bz2": bz2.compress, "xz": lzma.compress, "zst": None}


def packed_by(packer: str, content: bytes) -> bytes:
    if packer == "zst":
        if sys.version_info < (3, 14):
            pytest.importorskip("backports.zstd", reason="the extra `zstandard`")
        name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        zstd = importlib.import_module(name)
        packed: bytes = zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})
        return packed
    compress = PACKERS[packer]
    assert compress is not None
    return compress(content)


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return replace(DEFAULT_LIMITS, cache=str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a folder `served` of this machine."""
    pytest.importorskip("aiohttp", reason="the extra `remote`")
    pytest.importorskip("fsspec")
    (tmp_path / "served").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def problem(spec: str, limits: Limits) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        open_source(spec, limits=limits)
    return caught.value.diagnostics[0]


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_shard_is_unpacked_once(
    packer: str, pairs: Callable[..., Path], tmp_path: Path, limits: Limits
) -> None:
    path = pairs(3)
    expected = open_source(str(path))
    packed = tmp_path / f"pairs.tar.{packer}"
    packed.write_bytes(packed_by(packer, path.read_bytes()))
    source = open_source(str(packed), limits=limits)
    assert source.keys == expected.keys == ["pairs/0000", "pairs/0001", "pairs/0002"]
    assert dict(source[1]) == dict(expected[1])
    (copy,) = (tmp_path / "cache").rglob("*.tar")
    changed = copy.stat().st_mtime_ns
    stream = open_stream(str(packed), limits)
    assert [stream.key(place) for place in stream.places(0)] == list(expected.keys)
    assert copy.stat().st_mtime_ns == changed
    packed.write_bytes(packed_by(packer, pairs(2).read_bytes()))
    assert len(open_source(str(packed), limits=limits)) == 2


@pytest.mark.parametrize("packer", ["gz", "zst"])
def test_shards_that_are_damaged_or_too_large(
    packer: str, pairs: Callable[..., Path], tmp_path: Path, limits: Limits
) -> None:
    packed = tmp_path / f"pairs.tar.{packer}"
    whole = packed_by(packer, pairs(3).read_bytes())
    for content in (whole[: len(whole) // 2], b"no archive", whole[:20] + b"?" * 20 + whole[40:]):
        packed.write_bytes(content)
        assert problem(str(packed), limits).code == "V0807"
    packed.write_bytes(packed_by(packer, bytes(2**22)))
    fault = problem(str(packed), replace(limits, shard_bytes=2**20))
    assert (fault.code, fault.message.rpartition(": ")[2]) == ("V0807", "it is too large")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_shards_at_a_url(pairs: Callable[..., Path], tmp_path: Path, limits: Limits, server: str) -> None:
    for number in range(2):
        pairs(3, name=f"served/p-{number}.tar")
    source = open_source(f"{server}/p-{{0..1}}.tar", limits=limits)
    assert (len(source), source.keys[4], source.name) == (6, "p-1/0001", f"{server}/p-{{0..1}}.tar")
    (tmp_path / "served" / "p-0.tar.gz").write_bytes(gzip.compress((tmp_path / "served" / "p-0.tar").read_bytes()))
    assert len(open_source(f"{server}/p-0.tar.gz", limits=limits)) == 3
    pairs(5, name="served/p-0.tar")  # another version
    assert len(open_source(f"{server}/p-0.tar", limits=limits)) == 5
    assert problem(f"{server}/nothing.tar", limits).code == "V0807"
    assert problem(f"{server}/t.csv", limits).code == "V0805"
    assert problem("nowhere-at-all://h/a.tar", limits).code == "V0807"


def test_without_fsspec_its_name_is_said(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    fault = problem("https://h/a.tar", limits)
    assert (fault.code, fault.help[0]) == ("V0901", "run `pip install 'vlmdsl[remote]'`, or fetch the shards first")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python unpacks it itself")
def test_without_zstandard_its_package_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: Limits) -> None:
    monkeypatch.setitem(sys.modules, "backports", None)
    (tmp_path / "a.tar.zst").write_bytes(b"?")
    fault = problem(str(tmp_path / "a.tar.zst"), limits)
    help = "run `pip install 'vlmdsl[zstandard]'`, or unpack the shards first, with `unzstd`"
    assert (fault.code, fault.help[0]) == ("V0901", help)
