"""Unpacking: hostile archives are refused in one line and leave nothing, good ones come out as they went in."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.data.download import unpack as unpacking
from cpt.data.download.unpack import BadArchiveError, unpack
from cpt.errors import CptError

FILES = {"a.txt": b"one", "d/b.txt": b"two" * 1000, "d/e/c.bin": bytes(range(256)) * 20, "d/empty": b""}


def make_zip(path, files, method=zipfile.ZIP_DEFLATED):
    """Write a zip; names may be ZipInfo, whose fields are kept."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    return path


def make_tar(path, files, mode="w"):
    """Write a tar; names may be TarInfo, whose fields are kept."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def entry(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def attributes(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def box(tmp_path):
    """A folder for the archive, beside the one that it is unpacked in, so that strays are seen."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "in"


def refused(archive, **options):
    """Unpack, expect a failure that leaves nothing, and return its one line."""
    above = archive.parent.parent
    before = sorted(above.rglob("*"))
    with pytest.raises(CptError) as caught:
        unpack(archive, above / "out" / "new", **options)
    assert sorted(above.rglob("*")) == before
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert message.startswith(f"{archive}: ")
    return message


def good(archive, **options):
    folder = archive.parent.parent / "out" / "new"
    count = unpack(archive, folder, **options)
    found = content(folder)
    assert count == len(found)
    assert os.listdir(folder.parent) == ["new"]
    return found


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_method(box, method):
    assert good(make_zip(box / "a.zip", FILES, method)) == FILES


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tbz", "w:bz2"), ("a.txz", "w:xz")])
def test_tars_of_every_compression(box, name, mode):
    assert good(make_tar(box / name, FILES, mode)) == FILES


@pytest.mark.parametrize(("name", "mode"), [("a.tar.gz", "w"), ("a.zip", "w:gz"), ("a", "w:xz"), ("a.tar", "w:bz2")])
def test_the_name_of_an_archive_says_nothing(box, name, mode):
    assert good(make_tar(box / name, FILES, mode)) == FILES
    os.rename(box.parent / "out" / "new", box.parent / "before")
    assert good(make_zip(box / name, FILES)) == FILES


def test_a_tar_that_ends_in_a_zip_is_a_tar(box):
    inner = make_zip(box / "inner.zip", {"hidden": b"1"}).read_bytes()
    assert good(make_tar(box / "a.tar", {"z.zip": inner})) == {"z.zip": inner}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format(box, form):
    name = "/".join(["folder" * 12, "é" * 30, "x" * 60])
    with tarfile.open(box / "a.tar", "w", format=form, pax_headers={"comment": "global"}) as archive:
        for path in ("./", f"./{name}"):
            info = tarfile.TarInfo(path)
            info.type, info.size = (tarfile.DIRTYPE, 0) if path.endswith("/") else (tarfile.REGTYPE, 3)
            archive.addfile(info, io.BytesIO(b"abc"))
    assert good(box / "a.tar") == {name: b"abc"}


def test_owners_modes_and_umask_do_not_matter(box):
    archive = make_tar(box / "a.tar", {entry("d", tarfile.DIRTYPE): b"", "d/x": b"1"})
    info = tarfile.TarInfo("set")
    info.mode, info.uid, info.uname = 0o7777, 0, "root"
    make_tar(archive, {"d/x": b"1", info: b"2"})
    before = os.umask(0o077)
    try:
        good(archive)
    finally:
        os.umask(before)
    new = box.parent / "out" / "new"
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (new, new / "d", new / "set")}
    assert modes == {"new": 0o700, "d": 0o700, "set": 0o600}


def test_an_empty_folder_is_filled_and_a_full_one_kept(box):
    archive, folder = make_zip(box / "a.zip", FILES), box.parent / "out" / "new"
    folder.mkdir()
    assert good(archive) == FILES
    with pytest.raises(CptError, match="is not empty"):
        unpack(archive, folder)
    with pytest.raises(CptError, match="is not empty"):
        unpack(archive, archive)
    with pytest.raises(CptError, match="not found"):
        unpack(box / "absent", folder)
    assert content(folder) == FILES
    assert unpack(archive, box / "deep" / "er") == 4


def test_a_link_to_an_empty_folder_is_followed(box):
    (box.parent / "disk").mkdir()
    (box.parent / "out" / "new").symlink_to(box.parent / "disk")
    assert good(make_zip(box / "a.zip", FILES)) == FILES
    assert content(box.parent / "disk") == FILES


def test_a_folder_that_cannot_be_written_is_one_line(box):
    archive = make_zip(box / "a.zip", FILES)
    with pytest.raises(CptError, match=r"a\.zip/new: cannot be written \(") as caught:
        unpack(archive, archive / "new")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_junk_is_skipped(box, make):
    junk = ["__MACOSX/d/._b.txt", "d/.DS_Store", "._a.txt", "__MACOSX/x"]
    assert good(make(box / "a", {**FILES, **dict.fromkeys(junk, b"junk")})) == FILES


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_keep_chooses_and_skipped_members_do_not_count(box, make):
    big = {"big/a.bin": bytes(10_000), "big/b.bin": bytes(10_000)}
    found = good(make(box / "a", {**big, **FILES}), keep=lambda name: name.endswith(".txt"), limit_bytes=4000)
    assert found == {"a.txt": b"one", "d/b.txt": b"two" * 1000}
    assert not (box.parent / "out" / "new" / "big").exists()


def test_skipped_members_are_checked_all_the_same(box):
    for kind in (tarfile.SYMTYPE, tarfile.FIFOTYPE):
        refused(make_tar(box / "a", {"a": b"1", entry("b", kind, "a"): b""}), keep=lambda name: name == "a")
    for make in (make_zip, make_tar):
        refused(make(box / "a", {"a": b"1", "../b": b"1"}), keep=lambda name: name == "a")


BAD_NAMES = {
    "../up": "leads out",
    "d/../../up": "leads out",
    "d/..": "leads out",
    "/etc/absolute": "absolute",
    "//server/share": "absolute",
    "C:\\windows": "absolute",
    "c:relative": "absolute",
    "\\\\server\\share": "absolute",
    "d\\..\\up": "backslash",
    "a\nb": "control",
    "a\x7fb": "control",
    "a\x85b": "control",
    "invoice\u202egpj.exe": "control",
    "a\u2066b": "control",
    "a\u200fb": "control",
    "x" * 256: "too long",
    "é" * 128: "too long",
    "d/" * 101 + "x": "too long",
    ".": "empty name",
    "d/./.": None,
}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(box, make, name):
    archive = make(box / "a", {"first": b"1", name: b"2"})
    if BAD_NAMES[name] is None:
        assert set(good(archive)) == {"first", "d"}
        return
    message = refused(archive)
    assert BAD_NAMES[name] in message
    assert repr(name)[1:150] in message


def test_an_empty_name_is_refused(box):
    assert "empty name" in refused(make_zip(box / "a", {"first": b"1", "": b"2"}))
    assert "empty name" in refused(make_tar(box / "a", {"first": b"1", entry("", tarfile.REGTYPE): b"2"}))


def test_a_nul_in_a_name_is_refused(box):
    data = make_zip(box / "a", {"first": b"1", "safe.jpg_.exe": b"2"}).read_bytes()
    (box / "a").write_bytes(data.replace(b"safe.jpg_.exe", b"safe.jpg\0.exe"))
    assert r"'safe.jpg\x00.exe' has control characters" in refused(box / "a")
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": "safe.jpg\0.exe"}
    assert r"'safe.jpg\x00.exe' has control characters" in refused(make_tar(box / "a", {info: b"2"}))


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "FIFO"),
        (b"V", "is a device, FIFO or socket"),
    ],
)
def test_tar_members_that_are_no_files_are_refused(box, kind, fault):
    message = refused(make_tar(box / "a", {"first": b"1", entry("odd", kind, "first"): b""}))
    assert "'odd'" in message
    assert fault in message


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140666])
def test_zip_members_that_are_no_files_are_refused(box, mode):
    message = refused(make_zip(box / "a", {"first": b"1", attributes("odd", mode): b"/etc/passwd"}))
    assert "'odd' is a" in message


def test_a_link_and_a_file_through_it_are_refused(box):
    refused(make_tar(box / "a", {entry("d", tarfile.SYMTYPE, "/tmp"): b"", "d/x": b"1"}))
    refused(make_zip(box / "a", {attributes("d", 0o120777): b"/tmp", "d/x": b"1"}))


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("one", "two", "fault"),
    [
        ("a", "a", "is there twice"),
        ("d/a", "d/./a", "is there twice"),
        ("d/a", "d//a", "is there twice"),
        ("é", unicodedata.normalize("NFD", "é"), "is there twice"),
        ("é/a", unicodedata.normalize("NFD", "é/b"), "spelling of an accent"),
        ("a", "a/b", "needs a folder where there is a file"),
        ("a", "a/b/c/d", "needs a folder where there is a file"),
        ("a/b", "a", "is a file where there is a folder"),
        ("a/b/c", "a", "is a file where there is a folder"),
        ("a", "a/", "needs a folder where there is a file"),
        ("a/", "a", "is a file where there is a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_taken_are_refused(box, make, one, two, fault):
    def named(name):
        if make is make_tar:
            return entry(name, tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE)
        return zipfile.ZipInfo(name)

    files = {named(name): b"" if name.endswith("/") else b"1" for name in (one, two)}
    assert fault in refused(make(box / "a", files))


def test_a_folder_may_be_there_twice(box):
    entries = {entry("d", tarfile.DIRTYPE): b"", "d/a": b"1", entry("d/", tarfile.DIRTYPE): b"", "d/b": b"2"}
    assert good(make_tar(box / "a", entries)) == {"d/a": b"1", "d/b": b"2"}


def test_an_encrypted_zip_is_refused(box):
    data = bytearray(make_zip(box / "a", {"secret": b"1"}).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (box / "a").write_bytes(data)
    assert "'secret' is encrypted" in refused(box / "a")


def test_an_unknown_compression_is_refused(box):
    data = bytearray(make_zip(box / "a", {"odd": b"1"}).read_bytes())
    data[data.index(b"PK\1\2") + 10] = data[8] = 97
    (box / "a").write_bytes(data)
    assert "'odd' is damaged" in refused(box / "a")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_members_are_refused(box, make):
    archive = make(box / "a", {**{str(i): b"" for i in range(10)}, "._junk": b""})
    told = {make_zip: "has more members than may be", make_tar: "'._junk' is beyond the 10 members"}
    assert told[make] in refused(archive, limit_members=10)
    assert len(good(archive, limit_members=11)) == 10


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_folders_that_paths_imply_count_as_members(box, make):
    """Else a thousand empty files of 5 KB in all make a hundred thousand folders."""
    archive = make(box / "a", {f"{i}/{'d/' * 98}x": b"" for i in range(3)})
    assert "is beyond the 299 members that may be" in refused(archive, limit_members=299)
    assert len(good(archive, limit_members=300)) == 3


def test_a_folder_counts_once_whether_it_is_listed_or_not(box):
    listed = {entry("d", tarfile.DIRTYPE): b"", entry("d/e", tarfile.DIRTYPE): b"", "d/e/x": b"", "d/e/y": b""}
    for files in (listed, {"d/e/x": b"", "d/e/y": b""}):
        archive = make_tar(box / "a", files)
        assert "'d/e/y' is beyond the 3 members" in refused(archive, limit_members=3)
        assert len(good(archive, limit_members=4)) == 2
        os.rename(box.parent / "out" / "new", box.parent / f"before {len(files)}")


@pytest.mark.parametrize("form", ["as written", "of the large form", "lying"])
def test_members_of_a_zip_are_counted_before_they_are_kept(box, form, monkeypatch):
    """Whatever the end of the archive says of their number."""
    if form == "of the large form":
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 5)
    files = {str(i): b"1" for i in range(11)}
    make_zip(box / "a", files)
    data = bytearray((box / "a").read_bytes())
    assert (b"PK\6\6" in data) == (form == "of the large form")
    if form == "lying":
        data[-14:-10] = struct.pack("<2H", 1, 1)
        (box / "a").write_bytes(data)
    assert good(box / "a", limit_members=11) == files
    os.rename(box.parent / "out" / "new", box.parent / "before")

    def keep(*_):
        raise AssertionError("kept")

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", keep)
    assert "has more members than may be" in refused(box / "a", limit_members=10)


def test_a_zips_list_of_members_that_fills_the_memory_is_refused(box):
    data = bytearray(make_zip(box / "a", FILES).read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\5\6") + 12, 2**29)
    (box / "a").write_bytes(data)
    assert "has a list of members of 536870912 bytes" in refused(box / "a")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_fill_the_memory_are_refused(box, make):
    """Each of these brings 98 folders, whose paths are kept."""
    files = {f"{i}/{'/'.join(['x' * 28] * 98)}": b"" for i in range(300)}
    assert "brings all names to more than 33554432 characters" in refused(make(box / "a", files), keep=str.isspace)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_long_a_path_is_the_archives_fault(box, make):
    """The longest that Linux takes is 4,096 bytes, the folder's own included."""
    parts = ["x" * 200] * 15
    assert "has too long a name" in refused(make(box / "a", {"/".join(parts): b"1"}))
    assert "has too long a name" in refused(make(box / "a", {"/".join(["é" * 100] * 15): b"1"}))
    assert len(good(make(box / "a", {"/".join(parts[1:]): b"1"}))) == 1


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL])
def test_a_name_that_the_disk_does_not_take_is_the_archives_fault(box, monkeypatch, number):
    """Another mirror's archive may have another one."""

    def refuse(path, mode="r"):
        if "odd" in str(path):
            raise OSError(number, os.strerror(number))
        return open(path, mode)

    monkeypatch.setattr(unpacking, "open", refuse, raising=False)
    message = refused(make_tar(box / "a", {"first": b"1", "odd": b"2"}))
    assert f"member 'odd' has a name that this disk does not take ({os.strerror(number)})" in message
    with pytest.raises(BadArchiveError):
        unpack(box / "a", box.parent / "out" / "new")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_bytes_are_refused_before_they_are_written(box, make, monkeypatch):
    archive = make(box / "a", {"one": bytes(600), "bomb": bytes(401)})
    assert len(good(archive, limit_bytes=1001)) == 2
    os.rename(box.parent / "out" / "new", box.parent / "before")
    written = []
    write = unpacking._Job._write
    monkeypatch.setattr(unpacking._Job, "_write", lambda job, m, *rest: (written.append(m.name), write(job, m, *rest)))
    assert "'bomb' brings it to more than 1000 bytes" in refused(archive, limit_bytes=1000)
    assert written == ([] if make is make_zip else ["one"])


def test_the_usual_limit_follows_the_archive(box, monkeypatch):
    limits = []
    monkeypatch.setattr(unpacking._Job, "unpack", lambda job, *rest: limits.append(job.limit_bytes))
    archive = make_zip(box / "a", FILES)
    unpack(archive, box / "new")
    assert limits == [4 * archive.stat().st_size + 10**9]


def lie(path, size):
    """Make a zip of one member say another size, in both of its headers."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\3\4") + 22, size)
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_member_that_lies_about_its_size_is_refused(box, method, size):
    archive = lie(make_zip(box / "a", {"bomb": bytes(2_000_000)}, method), size)
    assert "'bomb' is damaged" in refused(archive)


def test_the_stream_itself_is_counted(box, monkeypatch):
    """Whatever a reader lets through: here one that gives more than the member says."""
    archive = make_zip(box / "a", {"bomb": bytes(400)})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *rest: io.BytesIO(bytes(1000)))
    assert "'bomb' is bigger than it says" in refused(archive)


def test_a_sparse_member_counts_with_its_holes(box):
    info = entry("sparse", tarfile.REGTYPE)
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**12), "GNU.sparse.numblocks": "1"}
    assert "'sparse' brings it to more than" in refused(make_tar(box / "a", {info: b"1"}))


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", b"PK", b"<!doctype html>", gzip.compress(b"text" * 999), bytes(9)],
    ids=["empty", "text", "PK", "page", "gzip", "zeros"],
)
def test_other_files_are_no_archives(box, data):
    (box / "a").write_bytes(data)
    assert refused(box / "a") == f"{box / 'a'}: is no zip or tar archive; delete it and fetch again"


@pytest.mark.parametrize(
    "data", [bytes(10_240), gzip.compress(bytes(10_240)), b"PK\5\6" + bytes(18)], ids=["tar", "gzip", "zip"]
)
def test_an_archive_of_nothing_is_refused(box, data):
    (box / "a").write_bytes(data)
    assert "holds nothing" in refused(box / "a")


NOISE = {f"d/{i}": os.urandom(3000) for i in range(10)}


@pytest.mark.parametrize("make", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_truncated_archives_are_refused(box, make, share):
    make_zip(box / "a", NOISE) if make == "zip" else make_tar(box / "a", NOISE, make)
    data = (box / "a").read_bytes().rstrip(b"\0")
    (box / "a").write_bytes(data[: int(len(data) * share)])
    assert "fetch again" in refused(box / "a")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_cut_between_two_members_is_refused(box, compress):
    """tarfile takes a missing or damaged header for the end."""
    data = make_tar(box / "a", NOISE).read_bytes()
    for broken in (data[: 3 * 3584], data[: 3 * 3584] + b"\xff" * 512 + data[3 * 3584 + 512 :]):
        (box / "a").write_bytes(compress(broken))
        assert "is damaged" in refused(box / "a")


@pytest.mark.parametrize("make", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_flipped_bytes_are_refused(box, make):
    make_zip(box / "a", NOISE) if make == "zip" else make_tar(box / "a", NOISE, make)
    data = bytearray((box / "a").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (box / "a").write_bytes(data)
    assert "fetch again" in refused(box / "a")


def test_the_checksum_at_the_end_of_a_gzip_is_read(box):
    data = bytearray(make_tar(box / "a", {"x": b"1"}, "w:gz").read_bytes())
    data[-5] ^= 0xFF
    (box / "a").write_bytes(data)
    assert "is damaged" in refused(box / "a")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_the_checksum_far_behind_the_end_is_read(box, compress):
    """The member comes out before its bytes are known to be right."""
    data = bytearray(compress(make_tar(box / "a", {"x": b"1"}).read_bytes() + bytes(3_000_000)))
    (box / "a").write_bytes(data)
    assert good(box / "a") == {"x": b"1"}
    os.rename(box.parent / "out" / "new", box.parent / "before")
    data[{gzip.compress: -5, bz2.compress: -3, lzma.compress: -13}[compress]] ^= 0xFF
    (box / "a").write_bytes(data)
    assert "is damaged" in refused(box / "a")


def test_what_comes_behind_the_end_has_a_limit(box):
    data = make_tar(box / "a", {"x": b"1"}).read_bytes()
    (box / "a").write_bytes(gzip.compress(data + bytes(5_000_000)))
    assert "is damaged (too much behind its end)" in refused(box / "a", limit_bytes=4_000_000)
    assert good(box / "a", limit_bytes=6_000_000) == {"x": b"1"}


def header(kind, content, name="x"):
    """Return a header of any kind, and what comes with it."""
    info = entry(name, kind)
    info.size = len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(key, value):
    """Return the record ``key=value`` of an extended header."""
    rest = f" {key}={value}\n"
    return next(f"{n}{rest}".encode() for n in range(len(rest), len(rest) + 9) if len(f"{n}{rest}") == n)


FIRST, LAST = header(tarfile.REGTYPE, b"1", "first"), header(tarfile.REGTYPE, b"1", "last") + bytes(10_240)


@pytest.mark.parametrize("kind", [tarfile.XGLTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_fill_the_memory_together_are_refused(box, kind):
    """Global ones hold until the archive's end, the others until the next member."""
    many = b"".join(header(kind, pax(f"key{i}", "x" * 400_000)) for i in range(3))
    (box / "a").write_bytes(FIRST + many + LAST)
    assert "headers of 1200" in refused(box / "a")


def test_long_headers_of_different_members_are_no_matter(box):
    many = b"".join(
        header(tarfile.XHDTYPE, pax("comment", "x" * 400_000)) + header(tarfile.REGTYPE, b"1", str(i)) for i in range(5)
    )
    (box / "a").write_bytes(header(tarfile.XGLTYPE, pax("comment", "x" * 900_000)) + many + LAST)
    assert len(good(box / "a")) == 6


def sparse(goes_on):
    """Return the old header of a sparse file of one extent, which ends at byte 1."""
    block = bytearray(header(tarfile.GNUTYPE_SPARSE, b""))
    block[386:410], block[482], block[483:495] = b"%011o\0" % 0 + b"%011o\0" % 0, goes_on, b"%011o\0" % 1
    block[124:136] = b"%011o\0" % 0
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:512]))
    return bytes(block)


def test_maps_of_sparse_files_that_fill_the_memory_are_refused(box):
    (box / "a").write_bytes(FIRST + sparse(0) + LAST)
    assert good(box / "a") == {"first": b"1", "x": b"\0", "last": b"1"}
    os.rename(box.parent / "out" / "new", box.parent / "before")
    (box / "a").write_bytes(gzip.compress(FIRST + sparse(1) + b"\1" * 512 * 10_000 + bytes(512) + LAST))
    assert "is damaged (sparse file with a map of any length)" in refused(box / "a")
    record = pax("GNU.sparse.major", "1") + pax("GNU.sparse.minor", "0") + pax("GNU.sparse.realsize", "1")
    numbers = b"2000000\n" + b"0\n" * 4_000_000
    (box / "a").write_bytes(FIRST + header(tarfile.XHDTYPE, record) + header(tarfile.REGTYPE, numbers) + LAST)
    assert "is damaged (sparse file with a map of any length)" in refused(box / "a")


def test_a_header_too_big_for_memory_is_refused(box):
    info = entry("x", tarfile.XHDTYPE)
    info.size = 2**40
    (box / "a").write_bytes(tarfile.TarInfo("first").tobuf() + info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    assert "header of 1099511627776 bytes" in refused(box / "a")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 3000), st.sampled_from(["zip", "w", "w:gz"]))
def test_damage_is_refused_in_one_line_or_does_no_harm(patch, where, make):
    with tempfile.TemporaryDirectory() as above:
        path = Path(above) / "a"
        make_zip(path, FILES) if make == "zip" else make_tar(path, FILES, make)
        data = bytearray(path.read_bytes())
        where %= len(data)
        data[where : where + len(patch)] = patch
        path.write_bytes(data)
        message = "none"
        try:
            unpack(path, Path(above) / "new")
        except CptError as error:
            message = str(error)
        assert len(message.splitlines()) == 1
        assert sorted(os.listdir(above)) == (["a", "new"] if message == "none" else ["a"])


PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "C:", "~", "-rf", "$(id)", "a\\b", "\\", "\u202ea", "a\n", "CON", "a" * 300]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=3), st.sampled_from("zw"))
def test_no_member_leaves_its_folder_whatever_it_is_called(names, make):
    """Refused in one line with nothing left behind, or every file lies below the folder."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "deep" / "er" / "new"
        path = Path(above) / "a"
        files = {f"{name or '/'}x": b"1" for name in names}
        make_zip(path, files) if make == "z" else make_tar(path, files)
        number, message = 0, "none"
        try:
            number = unpack(path, folder)
        except CptError as error:
            message = str(error)
        assert len(message.splitlines()) == 1
        found = [file for file in Path(above).rglob("*") if file.is_file() and file != path]
        assert len(found) == number
        assert all(file.resolve().is_relative_to(folder) and not file.is_symlink() for file in found)
        assert not list(Path(above).rglob("deep/er/.*"))


def outer(box, inner_files=FILES, make=make_tar, **others):
    inner = make(box / "inner", inner_files).read_bytes()
    (box / "inner").unlink()
    return make_zip(box / "a.zip", {"top/inner.tar.gz": inner, "top/read.me": b"text", **others})


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_nested_archive_is_unpacked_in_place(box, make):
    found = good(outer(box, make=make), nested=["*/inner.tar.gz"])
    assert found == {"top/read.me": b"text", **{f"top/{name}": data for name, data in FILES.items()}}


def test_a_nested_archive_at_the_top_is_unpacked_there(box):
    inner = make_tar(box / "inner", FILES, "w:gz").read_bytes()
    assert good(make_tar(box / "a", {"inner.tgz": inner}), nested=["inner.*", "*.tgz"]) == FILES


def test_keep_is_asked_about_inner_members_by_their_whole_path(box):
    asked = []
    found = good(outer(box), nested=["*.tar.gz"], keep=lambda name: asked.append(name) or name == "top/d/b.txt")
    assert found == {"top/d/b.txt": b"two" * 1000}
    assert asked == ["top/read.me", *(f"top/{name}" for name in FILES)]


def test_an_archive_in_a_nested_one_is_a_file_like_others(box):
    archive = outer(box, {"deeper.tar.gz": b"1", "x.txt": b"2"})
    assert set(good(archive, nested=["*.tar.gz"], keep=lambda name: name.endswith(".txt"))) == {"top/x.txt"}


def test_there_need_be_no_nested_archive(box):
    """Mirrors of a dataset differ in it."""
    assert good(make_tar(box / "a.tgz", FILES, "w:gz"), nested=["*/inner.tar.gz", "*/other.tar"]) == FILES


def test_what_is_said_to_be_an_archive_and_is_none_is_refused(box):
    message = refused(outer(box), nested=["*/read.me"])
    assert message == f"{box / 'a.zip'}: 'top/read.me': is no zip or tar archive; delete it and fetch again"


def test_the_rules_and_limits_hold_inside_too(box):
    nested = ["*.tar.gz"]
    assert "'../../up' leads out" in refused(outer(box, {"../../up": b"1"}), nested=nested)
    assert "is a link" in refused(outer(box, {entry("x", tarfile.SYMTYPE, "/tmp"): b""}), nested=nested)
    assert "'read.me' is there twice" in refused(outer(box, {"read.me": b"1"}), nested=nested)
    assert "'inner.tar.gz' is there twice" in refused(outer(box, {"inner.tar.gz": b"1"}), nested=nested)
    size = 10_240 + 4
    archive = outer(box, {"x": bytes(100)})
    assert "'x' brings it to more than" in refused(archive, nested=nested, limit_bytes=size + 99)
    assert "'x' is beyond the 3 members" in refused(archive, nested=nested, limit_members=3)
    assert "has more members than may be" in refused(outer(box, {"x": b""}, make_zip), nested=nested, limit_members=3)
    assert len(good(archive, nested=nested, limit_bytes=size + 100, limit_members=4)) == 2, "top, its two files and x"


def test_only_what_the_archive_is_to_blame_for_says_that_it_is_bad(box, monkeypatch):
    """Whoever takes every failure for the archive's would throw away a good one."""
    for bad in (make_zip(box / "up", {"../x": b"1"}), make_tar(box / "none", {}), box / "text"):
        if bad.name == "text":
            bad.write_text("text")
        with pytest.raises(BadArchiveError):
            unpack(bad, box.parent / "out" / "new")
    archive = make_zip(box / "a.zip", FILES)

    def failing(number):
        def fail(*_, **__):
            raise OSError(number, os.strerror(number))

        return fail

    (box / "file").write_text("in the way")
    with pytest.raises(CptError, match="cannot be written") as caught:
        unpack(archive, box / "file" / "new")
    assert not isinstance(caught.value, BadArchiveError)
    for where, number, reason in (
        (tempfile, errno.ENOSPC, "out/new: cannot be written (No space left on device)"),
        (zipfile.ZipExtFile, errno.EIO, "a.zip: cannot be read (Input/output error); fix that and run again"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, "mkdtemp" if where is tempfile else "read", failing(number))
            with pytest.raises(CptError) as caught:
                unpack(archive, box.parent / "out" / "new")
        assert reason in str(caught.value)
        assert not isinstance(caught.value, BadArchiveError)


ODD = "/\\:\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
WORDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters=ODD), min_size=1, max_size=30
).filter(lambda word: not word.startswith(".") and word != "__MACOSX")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.lists(WORDS, min_size=1, max_size=3).map("/".join), st.binary(max_size=200), min_size=1),
    st.sampled_from(["zip", "w", "w:gz", "w:xz"]),
)
def test_any_sane_archive_comes_out_as_it_went_in(files, make):
    files = {f"{i}/{name}": data for i, (name, data) in enumerate(files.items())}  # no two can meet
    with tempfile.TemporaryDirectory() as above:
        path = Path(above) / "a"
        make_zip(path, files) if make == "zip" else make_tar(path, files, make)
        assert unpack(path, Path(above) / "new") == len(files)
        assert content(Path(above) / "new") == files
        assert sorted(os.listdir(above)) == ["a", "new"]
