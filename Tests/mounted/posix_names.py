"""File names of every length and every byte."""

import errno
import os

from harness import equal, on_mount, raises


def each_kind(d, name: bytes):
    """A file, a directory and a link of this name live through creation, listing, rename and removal."""
    top = bytes(d)
    path = top + b"/" + name
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    equal(os.listdir(top), [name], "listing")
    os.rename(path, top + b"/temporary")
    os.rename(top + b"/temporary", path)
    os.link(path, top + b"/second")
    os.unlink(top + b"/second")
    os.unlink(path)
    os.mkdir(path)
    os.mkdir(path + b"/in")
    equal(os.listdir(path), [b"in"])
    os.rmdir(path + b"/in")
    os.rmdir(path)
    os.symlink(name, path)
    equal(os.readlink(path), name)
    os.unlink(path)
    equal(os.listdir(top), [], "at the end")


@on_mount(limit=60)
def every_length(d):
    for length in range(1, 256):
        each_kind(d, b"n" * length)


@on_mount(limit=60)
def every_length_at_once(d):
    for length in range(1, 256):
        (d / ("a" * length)).write_bytes(bytes([length]))
    equal(sorted(os.listdir(d)), sorted("a" * length for length in range(1, 256)))
    for length in range(1, 256):
        equal((d / ("a" * length)).read_bytes(), bytes([length]))
    for length in range(1, 256):
        os.unlink(d / ("a" * length))
    equal(os.listdir(d), [])


@on_mount()
def too_long(d):
    raises(errno.ENAMETOOLONG, os.mkdir, d / ("n" * 256))
    raises(errno.ENAMETOOLONG, os.stat, d / ("n" * 256))
    (d / "f").touch()
    raises(errno.ENAMETOOLONG, os.rename, d / "f", d / ("n" * 256))
    raises(errno.ENAMETOOLONG, os.symlink, "x", d / ("n" * 256))


@on_mount(limit=60)
def every_byte(d):
    for value in range(1, 256):
        if value != ord("/"):
            each_kind(d, b"b" + bytes([value]) + b"e")
            if value != ord("."):
                each_kind(d, bytes([value]))


@on_mount(limit=60)
def all_bytes_in_one_name(d):
    everything = bytes(value for value in range(1, 256) if value != ord("/"))
    each_kind(d, everything + b"x")
    each_kind(d, everything[::-1] + b"x")


@on_mount()
def names_that_look_special(d):
    for name in (b" ", b"  ", b"...", b"..a", b".hidden", b"~", b"-rf", b"*", b"a\nb", b"\xff\xfe", b"lethefs.dir",
                 b"lethefs.long.AAAA", b".lethefs", b".fuse_hidden0001", "é".encode(), "e\u0301".encode(), b"CON",
                 b"a" * 200 + b".tmp", b"AAAAAAAAAAAAAAAAAAAAAA", b"%s%n", b"trailing.", b"."*255):
        each_kind(d, name)


@on_mount()
def case_and_normal_forms_differ(d):
    names = ["readme", "README", "Readme", "\u00e9", "e\u0301"]
    for number, name in enumerate(names):
        (d / name).write_bytes(bytes([number]))
    equal(sorted(os.listdir(d)), sorted(names))
    for number, name in enumerate(names):
        equal((d / name).read_bytes(), bytes([number]))


@on_mount(limit=60)
def names_that_share_a_long_prefix(d):
    names = [("p" * 240) + f"{number:015d}" for number in range(300)]
    for name in names:
        (d / name).touch()
    equal(sorted(os.listdir(d)), names)
    for name in names[::2]:
        os.unlink(d / name)
    equal(sorted(os.listdir(d)), names[1::2])
    for name in names[1::2]:
        os.unlink(d / name)
    os.rmdir(d)
    os.mkdir(d)
