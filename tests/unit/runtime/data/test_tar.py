"""The members of an archive, as Python's library finds them, only faster."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.data.left_out import LeftOut
from vlmdsl.runtime.data.tar import BLOCK, DamagedTar, Member, members_of

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120)
MEMBERS = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from([b"", b"x", b"0" * 511, b"1" * 512, b"2" * 513]),
        st.sampled_from([0, 1_700_000_000, 1_700_000_000.25, -1]),
        st.sampled_from(["file", "file", "file", "link", "symbolic link", "folder"]),
    ),
    min_size=1,
    max_size=6,
)
KINDS = {"file": tarfile.REGTYPE, "link": tarfile.LNKTYPE, "symbolic link": tarfile.SYMTYPE, "folder": tarfile.DIRTYPE}


def archive(members: list[tuple[str, bytes, float, str]], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as written:
        for name, data, time, kind in members:
            header = tarfile.TarInfo(name)
            header.type, header.mtime = KINDS[kind], time
            header.size = len(data) if kind == "file" else 0
            header.linkname = members[0][0]
            written.addfile(header, io.BytesIO(data))
    return file.getvalue()


def members_found(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> list[Member] | str:
    """The members, or that the archive is damaged; with `monkeypatch` as the library alone finds them."""
    path = folder / "archive.tar"
    path.write_bytes(data)
    with open(path, "rb", buffering=0) as file, pytest.MonkeyPatch.context() as patch:
        if monkeypatch is not None:
            patch.setattr("vlmdsl.runtime.data.tar._plain_entry", lambda blocks, offset: None)
        try:
            return list(members_of(file, len(data), LeftOut(), "archive"))
        except DamagedTar:
            return "damaged"


@given(MEMBERS, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.data())
def test_members_are_those_that_the_library_finds(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, float, str]], form: int, data: st.DataObject
) -> None:
    folder, patch = tmp_path_factory.getbasetemp(), pytest.MonkeyPatch()
    try:
        content = archive(members, form)
    except ValueError:
        return  # the format has no room for the name
    plain = members_found(content, folder)
    assert plain == members_found(content, folder, patch)
    assert [member.name for member in plain if isinstance(member, Member)] == _listed(content)
    # Whatever byte of it changes, both find the same, or both that it is damaged.
    place = data.draw(st.integers(0, len(content) - 1))
    block = place // BLOCK * BLOCK
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    assert members_found(bytes(changed), folder) == members_found(bytes(changed), folder, patch), (block, place - block)


def _listed(content: bytes) -> list[str]:
    """The names of files, and of links to those before them."""
    names: list[str] = []
    with tarfile.open(fileobj=io.BytesIO(content), encoding="utf-8") as read:
        for member in read.getmembers():
            if member.isreg() or (member.islnk() and member.linkname in names):
                names.append(member.name)
    return names


def test_members_that_are_not_in_a_row_and_links_are_read_from_their_places(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as written:
        for name, content in (("a.png", b"A"), ("b.png", b"B"), ("a.txt", b"one"), ("b.txt", b"two"), ("c.cls", b"7")):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            written.addfile(header, io.BytesIO(content))
        for name, target in (("c.png", "a.png"), ("b.caption", "a.txt"), ("c.txt", "nothing.txt")):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.LNKTYPE, target
            written.addfile(header)
    source = open_source(str(path))
    assert [dict(source[index]) for index in range(3)] == [
        {"image": b"A", "txt": "one"},
        {"image": b"B", "txt": "two", "caption": "one"},
        {"image": b"A", "cls": 7},
    ]


def test_a_header_for_all_members_that_names_them_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "g.tar", "w", pax_headers={"comment": "of git"}) as written:
        written.addfile(tarfile.TarInfo("a.txt"))
    assert len(open_source(str(tmp_path / "g.tar"))) == 1
    data = archive([("a.txt", b"1", 0, "file")], tarfile.PAX_FORMAT)
    header = tarfile.TarInfo.create_pax_global_header({"path": "b.txt"})
    assert members_found(header + data, tmp_path) == "damaged"
