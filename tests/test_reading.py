"""Text whatever mark it begins with, plain files only, no memory for what a file cannot hold."""

import codecs
import gzip
import os
import socket

import pytest
from pendel.base.reading import LONGEST_LINE, check_memory, plain_file, read_text, text_lines

TEXT = "first λ\n\nsecond\n"
MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-32": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_text_is_the_same_in_every_unicode(tmp_path, encoding, ends):
    path = tmp_path / "text"
    path.write_bytes(MARKS[encoding] + TEXT.replace("\n", ends).encode(encoding))
    assert read_text(path, "text") == TEXT
    assert list(text_lines(path, "text")) == [(1, "first λ"), (3, "second")]
    (tmp_path / "packed").write_bytes(gzip.compress(path.read_bytes()))
    assert read_text(tmp_path / "packed", "text") == TEXT


def test_what_is_no_text_is_named(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="text: expected a CIF file in UTF-8, got .* can't decode byte 0xe9"):
        read_text(path, "a CIF file")
    assert read_text(path, "a CIF file", errors="replace") == "caf�" and list(text_lines(path, "SPEC")) == [(1, "caf�")]
    path.write_bytes(codecs.BOM_UTF16_LE)
    with pytest.raises(ValueError, match="text: expected a CIF file, got a byte-order mark and no text"):
        read_text(path, "a CIF file")
    path.write_bytes(gzip.compress(bytes(1 << 24)))
    with pytest.raises(ValueError, match="text: expected a CIF file of at most 1 MiB, got a longer one"):
        read_text(path, "a CIF file")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="text: expected a CIF file, got a truncated or damaged file"):
        read_text(path, "a CIF file")
    path.write_bytes(b"\n" + b"x" * (LONGEST_LINE + (1 << 20)))
    with pytest.raises(ValueError, match="text: line 2: expected at most 4194304 characters, got a longer one"):
        list(text_lines(path, "a SPEC file"))


def test_only_plain_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, kind in (("pipe", "a named pipe"), ("link", "a named pipe")):
        with pytest.raises(ValueError, match=f"{name}: expected a scan, got {kind}"):
            plain_file(tmp_path / name, "a scan")
    with pytest.raises(ValueError, match="/dev/zero: expected a scan, got a device"):
        plain_file("/dev/zero", "a scan")
    with pytest.raises(IsADirectoryError, match="expected a scan, got a folder"):
        plain_file(tmp_path, "a scan")
    with pytest.raises(FileNotFoundError, match="broken: expected a scan, got no such file, a link to .*nowhere"):
        plain_file(tmp_path / "broken", "a scan")
    with pytest.raises(OSError, match="circle: expected a scan, got "):
        plain_file(tmp_path / "circle", "a scan")
    with pytest.raises(FileNotFoundError, match="expected a scan, got no such file"):
        plain_file(tmp_path / "none" / "deeper", "a scan")


def test_sockets_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(ValueError, match="socket: expected a scan, got a socket"):
            plain_file("socket", "a scan")


def test_memory_is_asked_for_as_far_as_the_file_can_hold_it():
    check_memory("x", 1 << 28, 1)  # what any machine has
    check_memory("x", 850 << 20, 1 << 20)  # sparse counts, packed
    with pytest.raises(ValueError, match="x: expected an array that its 1 MiB in the file can hold, got one of 1 GiB"):
        check_memory("x", 1 << 30, 1 << 20)
    with pytest.raises(ValueError, match="x: expected an array that fits the memory of .* GiB, got 1.049e.06 GiB"):
        check_memory("x", 1 << 50, 1 << 50)
