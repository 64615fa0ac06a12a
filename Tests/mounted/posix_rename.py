"""rename(2) and renameat2(2)."""

import errno
import os

from harness import equal, on_mount, raises
from harness.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2


@on_mount()
def file_over_nothing_and_over_a_file(d):
    (d / "a").write_bytes(b"a")
    os.rename(d / "a", d / "b")
    equal(os.listdir(d), ["b"])
    (d / "c").write_bytes(b"c")
    os.rename(d / "c", d / "b")
    equal(os.listdir(d), ["b"])
    equal((d / "b").read_bytes(), b"c")
    raises(errno.ENOENT, os.rename, d / "a", d / "b")


@on_mount()
def between_directories(d):
    (d / "one/sub").mkdir(parents=True)
    (d / "two").mkdir()
    (d / "one/file").write_bytes(b"x" * 5000)
    (d / "one/sub/inner").write_bytes(b"inner")
    os.rename(d / "one/file", d / "two/file")
    os.rename(d / "one/sub", d / "two/sub")
    equal(os.listdir(d / "one"), [])
    equal((d / "two/file").read_bytes(), b"x" * 5000)
    equal((d / "two/sub/inner").read_bytes(), b"inner")
    equal((d / "one").stat().st_nlink, 2)
    equal((d / "two").stat().st_nlink, 3)


@on_mount()
def directory_over_directory(d):
    (d / "a").mkdir()
    (d / "a/in").touch()
    (d / "empty").mkdir()
    os.rename(d / "a", d / "empty")
    equal(os.listdir(d / "empty"), ["in"])
    (d / "b").mkdir()
    raises((errno.ENOTEMPTY, errno.EEXIST), os.rename, d / "b", d / "empty")
    equal(sorted(os.listdir(d)), ["b", "empty"])


@on_mount()
def mismatched_types(d):
    (d / "dir").mkdir()
    (d / "file").touch()
    raises(errno.EISDIR, os.rename, d / "file", d / "dir")
    raises(errno.ENOTDIR, os.rename, d / "dir", d / "file")


@on_mount()
def into_own_descendant(d):
    (d / "a/b/c").mkdir(parents=True)
    raises(errno.EINVAL, os.rename, d / "a", d / "a/b/c/x")
    raises((errno.ENOTEMPTY, errno.EEXIST), os.rename, d / "a/b/c", d / "a")
    equal(os.listdir(d / "a/b"), ["c"])


@on_mount()
def same_file(d):
    (d / "a").write_bytes(b"x")
    os.link(d / "a", d / "b")
    os.rename(d / "a", d / "b")
    equal(sorted(os.listdir(d)), ["a", "b"])
    os.rename(d / "a", d / "a")
    equal((d / "a").read_bytes(), b"x")


@on_mount()
def no_replace(d):
    (d / "a").write_bytes(b"a")
    (d / "b").write_bytes(b"b")
    raises(errno.EEXIST, renameat2, d / "a", d / "b", RENAME_NOREPLACE)
    renameat2(d / "a", d / "c", RENAME_NOREPLACE)
    equal(sorted(os.listdir(d)), ["b", "c"])
    (d / "dir").mkdir()
    raises(errno.EEXIST, renameat2, d / "c", d / "dir", RENAME_NOREPLACE)


@on_mount()
def exchange(d):
    (d / "file").write_bytes(b"file")
    (d / "dir/sub").mkdir(parents=True)
    (d / "dir/sub/x").write_bytes(b"x")
    renameat2(d / "file", d / "dir", RENAME_EXCHANGE)
    equal((d / "dir").read_bytes(), b"file")
    equal((d / "file/sub/x").read_bytes(), b"x")
    raises(errno.ENOENT, renameat2, d / "file", d / "none", RENAME_EXCHANGE)
    raises(errno.EINVAL, renameat2, d / "file", d / "file/sub/x", RENAME_EXCHANGE)


@on_mount()
def exchange_of_long_names(d):
    long, other = "l" * 255, "o" * 255
    (d / long).write_bytes(b"long")
    (d / "short").write_bytes(b"short")
    (d / other).mkdir()
    renameat2(d / long, d / "short", RENAME_EXCHANGE)
    equal((d / long).read_bytes(), b"short")
    equal((d / "short").read_bytes(), b"long")
    renameat2(d / long, d / other, RENAME_EXCHANGE)
    equal((d / other).read_bytes(), b"short")
    assert (d / long).is_dir()
    equal(sorted(os.listdir(d)), sorted([long, other, "short"]))


@on_mount()
def long_names_both_ways(d):
    long, other = "l" * 255, "o" * 254
    (d / "short").write_bytes(b"1")
    os.rename(d / "short", d / long)
    os.rename(d / long, d / other)
    equal(os.listdir(d), [other])
    (d / long).write_bytes(b"2")
    os.rename(d / long, d / other)
    equal((d / other).read_bytes(), b"2")
    (d / "sub").mkdir()
    os.rename(d / other, d / "sub" / long)
    equal(os.listdir(d), ["sub"])
    os.rename(d / "sub" / long, d / "back")
    equal((d / "back").read_bytes(), b"2")
    os.rmdir(d / "sub")


@on_mount()
def open_files_follow(d):
    fd = os.open(d / "a", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before")
    (d / "dir").mkdir()
    os.rename(d / "a", d / "dir/b")
    os.write(fd, b" after")
    os.rename(d / "dir", d / "moved")
    os.write(fd, b" all")
    os.close(fd)
    equal((d / "moved/b").read_bytes(), b"before after all")


@on_mount()
def sticky_and_times(d):
    (d / "a").write_bytes(b"x")
    os.utime(d / "a", ns=(1_000_000_001, 2_000_000_002))
    os.utime(d, ns=(1, 1))
    os.rename(d / "a", d / "b")
    equal((d / "b").stat().st_mtime_ns, 2_000_000_002)
    assert d.stat().st_mtime_ns > 1, "the directory's mtime did not change"


@on_mount()
def thousand_renames_keep_one_file(d):
    (d / "f0").write_bytes(b"content" * 1000)
    for turn in range(1000):
        os.rename(d / f"f{turn}", d / f"f{turn + 1}")
    equal(os.listdir(d), ["f1000"])
    equal((d / "f1000").read_bytes(), b"content" * 1000)
