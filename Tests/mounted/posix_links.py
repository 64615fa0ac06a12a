"""Hard links, symbolic links, special files."""

import errno
import os
import socket
import stat
import threading

from harness import equal, on_mount, raises


@on_mount()
def hard_links(d):
    (d / "a").write_bytes(b"one")
    os.link(d / "a", d / "b")
    (d / "sub").mkdir()
    os.link(d / "b", d / "sub/c")
    equal((d / "a").stat().st_nlink, 3)
    equal((d / "a").stat().st_ino, (d / "sub/c").stat().st_ino, "inode")
    with open(d / "sub/c", "ab") as file:
        file.write(b" two" * 2000)
    equal((d / "a").read_bytes(), b"one" + b" two" * 2000)
    os.unlink(d / "a")
    equal((d / "b").stat().st_nlink, 2)
    equal((d / "b").read_bytes(), b"one" + b" two" * 2000)
    os.rename(d / "sub/c", d / "moved")
    os.unlink(d / "b")
    equal((d / "moved").stat().st_nlink, 1)
    equal((d / "moved").read_bytes(), b"one" + b" two" * 2000)


@on_mount()
def hard_links_with_long_names(d):
    first, second = "f" * 255, "s" * 255
    (d / first).write_bytes(b"x")
    os.link(d / first, d / second)
    os.link(d / first, d / "short")
    os.unlink(d / first)
    equal(sorted(os.listdir(d)), sorted([second, "short"]))
    equal((d / second).read_bytes(), b"x")
    os.unlink(d / "short")
    equal((d / second).stat().st_nlink, 1)
    (d / first).touch()
    raises(errno.EEXIST, os.link, d / second, d / first)


@on_mount()
def links_that_may_not_be(d):
    (d / "dir").mkdir()
    (d / "file").touch()
    raises(errno.EPERM, os.link, d / "dir", d / "link")
    raises(errno.EEXIST, os.link, d / "file", d / "dir")
    raises(errno.ENOENT, os.link, d / "none", d / "link")


@on_mount()
def link_to_an_open_file(d):
    fd = os.open(d / "a", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"first")
    os.link(d / "a", d / "b")
    os.unlink(d / "a")
    os.write(fd, b" second")
    os.close(fd)
    equal((d / "b").read_bytes(), b"first second")


@on_mount()
def symlink_targets_of_every_length(d):
    for length in (1, 2, 10, 31, 32, 60, 100, 254, 255, 256, 1000, 2900, 3000, 3001, 4000, 4094, 4095):
        target = ("t/" * length)[:length]
        os.symlink(target, d / f"l{length}")
        equal(os.readlink(d / f"l{length}"), target, f"target of {length}")
        equal(os.lstat(d / f"l{length}").st_size, length, f"st_size with a target of {length}")
    raises(errno.ENAMETOOLONG, os.symlink, "t" * 4096, d / "over")
    raises(errno.ENOENT, os.symlink, "", d / "empty")


@on_mount()
def symlink_targets_of_any_bytes(d):
    target = bytes(range(1, 256))
    os.symlink(target, bytes(d / "l"))
    equal(os.readlink(bytes(d / "l")), target)


@on_mount()
def symlinks_are_followed(d):
    (d / "dir").mkdir()
    (d / "dir/file").write_bytes(b"through")
    os.symlink("dir", d / "link")
    os.symlink("link/file", d / "second")
    equal((d / "link/file").read_bytes(), b"through")
    equal((d / "second").read_bytes(), b"through")
    os.symlink("loop", d / "loop")
    raises(errno.ELOOP, os.stat, d / "loop")
    os.symlink(str(d / "dir/file"), d / "absolute")
    equal((d / "absolute").read_bytes(), b"through")
    os.rename(d / "second", d / "renamed")
    equal(os.readlink(d / "renamed"), "link/file")
    os.link(d / "renamed", d / "hard", follow_symlinks=False)
    equal(os.readlink(d / "hard"), "link/file")
    equal(os.lstat(d / "hard").st_nlink, 2)
    raises(errno.EEXIST, os.symlink, "x", d / "link")
    raises(errno.EINVAL, os.readlink, d / "dir/file")


@on_mount()
def symlink_owner_and_times(d):
    os.symlink("nowhere", d / "l")
    os.chown(d / "l", 1234, 5678, follow_symlinks=False)
    os.utime(d / "l", ns=(111_222_333, 444_555_666), follow_symlinks=False)
    status = os.lstat(d / "l")
    equal((status.st_uid, status.st_gid, status.st_mtime_ns), (1234, 5678, 444_555_666))
    assert stat.S_ISLNK(status.st_mode)


@on_mount()
def fifo(d):
    os.mkfifo(d / "fifo", 0o640)
    assert stat.S_ISFIFO((d / "fifo").stat().st_mode)
    equal((d / "fifo").stat().st_mode & 0o7777, 0o640)
    writer = threading.Thread(target=lambda: (d / "fifo").write_bytes(b"through the pipe"), daemon=True)
    writer.start()
    equal((d / "fifo").read_bytes(), b"through the pipe")
    writer.join(5)


@on_mount()
def unix_socket(d):
    os.chdir(d)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen(1)
        client.connect("socket")
        assert stat.S_ISSOCK(os.stat("socket").st_mode)
    os.chdir("/")


@on_mount()
def device_nodes(d):
    """A node keeps its numbers; the mount is nodev or not as its options say, so opening is not tried."""
    for name, mode, device in (("null", stat.S_IFCHR, os.makedev(1, 3)), ("block", stat.S_IFBLK, os.makedev(7, 250))):
        os.mknod(d / name, mode | 0o600, device)
        status = os.lstat(d / name)
        equal((stat.S_IFMT(status.st_mode), status.st_rdev, status.st_size), (mode, device, 0), name)
    os.mknod(d / "file", stat.S_IFREG | 0o600)
    (d / "file").write_bytes(b"made by mknod")
    equal((d / "file").read_bytes(), b"made by mknod")
    os.rename(d / "null", d / "moved")
    os.link(d / "moved", d / "linked")
    equal(os.lstat(d / "linked").st_nlink, 2)
    for name in ("moved", "linked", "block"):
        os.unlink(d / name)
    equal(os.listdir(d), ["file"])
