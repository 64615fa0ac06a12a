"""Extended attributes in the user, security and trusted name spaces."""

import errno
import os

from harness import as_user, equal, on_mount, raises

NOBODY = 65534


@on_mount()
def user_attributes_of_files_and_directories(d):
    (d / "f").touch()
    (d / "d").mkdir()
    for path in (d / "f", d / "d"):
        equal(os.listxattr(path), [], "names at first")
        os.setxattr(path, "user.a", b"value")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.binary", bytes(range(256)))
        equal(sorted(os.listxattr(path)), ["user.a", "user.binary", "user.empty"])
        equal(os.getxattr(path, "user.a"), b"value")
        equal(os.getxattr(path, "user.empty"), b"")
        equal(os.getxattr(path, "user.binary"), bytes(range(256)))
        os.setxattr(path, "user.a", b"another, longer value")
        equal(os.getxattr(path, "user.a"), b"another, longer value")
        os.removexattr(path, "user.a")
        raises(errno.ENODATA, os.getxattr, path, "user.a")
        raises(errno.ENODATA, os.removexattr, path, "user.a")
        equal(sorted(os.listxattr(path)), ["user.binary", "user.empty"])


@on_mount()
def create_and_replace(d):
    (d / "f").touch()
    raises(errno.ENODATA, os.setxattr, d / "f", "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(d / "f", "user.a", b"1", os.XATTR_CREATE)
    raises(errno.EEXIST, os.setxattr, d / "f", "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(d / "f", "user.a", b"3", os.XATTR_REPLACE)
    equal(os.getxattr(d / "f", "user.a"), b"3")


@on_mount()
def through_descriptors(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.setxattr(fd, "user.fd", b"v")
    equal(os.listxattr(d / "f"), ["user.fd"])
    equal(os.getxattr(fd, "user.fd"), b"v")
    os.close(fd)


@on_mount()
def trusted_and_security(d):
    (d / "f").touch()
    (d / "d").mkdir()
    os.symlink("f", d / "l")
    for path in (d / "f", d / "d", d / "l"):
        os.setxattr(path, "trusted.overlay.opaque", b"y", follow_symlinks=False)
        equal(os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False), b"y", path.name)
        assert "trusted.overlay.opaque" in os.listxattr(path, follow_symlinks=False)
    os.setxattr(d / "f", "security.test", b"label")
    equal(os.getxattr(d / "f", "security.test"), b"label")
    assert not any(name.startswith("trusted.") for name in as_user(NOBODY, NOBODY, os.listxattr, d / "f"))
    raises((errno.EPERM, errno.ENODATA), as_user, NOBODY, NOBODY, os.setxattr, d / "f", "trusted.x", b"1")


@on_mount()
def user_attributes_on_symlinks_are_refused(d):
    os.symlink("nowhere", d / "l")
    raises(errno.EPERM, os.setxattr, d / "l", "user.x", b"1", follow_symlinks=False)
    equal(os.listxattr(d / "l", follow_symlinks=False), [])


@on_mount()
def file_capabilities(d):
    """security.capability is what setcap writes; a write to the file drops it."""
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    (d / "f").write_bytes(b"program")
    os.setxattr(d / "f", "security.capability", value)
    equal(os.getxattr(d / "f", "security.capability"), value)
    with open(d / "f", "ab") as file:
        file.write(b"x")
    raises(errno.ENODATA, os.getxattr, d / "f", "security.capability")


@on_mount()
def names_and_values_of_all_lengths(d):
    (d / "f").touch()
    for length in (1, 10, 31, 32, 33, 100, 160, 200, 250):
        name = "user." + "n" * length
        os.setxattr(d / "f", name, b"v" * length)
        equal(os.getxattr(d / "f", name), b"v" * length, f"value under a name of {length}")
        os.removexattr(d / "f", name)
    for length in (0, 1, 100, 1000, 2000, 3000):
        os.setxattr(d / "f", "user.v", b"v" * length)
        equal(os.getxattr(d / "f", "user.v"), b"v" * length, f"value of {length}")
    raises((errno.ERANGE, errno.ENAMETOOLONG), os.setxattr, d / "f", "user." + "n" * 251, b"")


@on_mount()
def what_does_not_fit_is_refused_whole(d):
    """ext4 holds about one block of attributes: the refusal is ENOSPC (or E2BIG) and the old value stays."""
    (d / "f").touch()
    os.setxattr(d / "f", "user.v", b"old")
    try:
        os.setxattr(d / "f", "user.v", b"x" * 60_000)
        equal(os.getxattr(d / "f", "user.v"), b"x" * 60_000)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.E2BIG), error
        equal(os.getxattr(d / "f", "user.v"), b"old")
    raises((errno.E2BIG,), os.setxattr, d / "f", "user.v", b"x" * 65_537)


@on_mount()
def many_attributes(d):
    (d / "f").touch()
    want = {f"user.attribute{number}": bytes([number]) * 8 for number in range(25)}
    for name, value in want.items():
        os.setxattr(d / "f", name, value)
    equal(set(os.listxattr(d / "f")), set(want))
    equal({name: os.getxattr(d / "f", name) for name in want}, want)


@on_mount()
def unknown_name_spaces_and_missing_files(d):
    (d / "f").touch()
    raises(errno.EOPNOTSUPP, os.setxattr, d / "f", "nonsense.x", b"1")
    raises(errno.EOPNOTSUPP, os.setxattr, d / "f", "noprefix", b"1")
    raises(errno.ENOENT, os.setxattr, d / "none", "user.x", b"1")
    raises(errno.ENODATA, os.getxattr, d / "f", "user.none")


@on_mount()
def attributes_follow_the_file(d):
    (d / "a").touch()
    os.setxattr(d / "a", "user.x", b"1")
    os.link(d / "a", d / "b")
    os.rename(d / "a", d / "c")
    equal(os.getxattr(d / "b", "user.x"), b"1")
    equal(os.getxattr(d / "c", "user.x"), b"1")
    changed = (d / "c").stat().st_ctime_ns
    os.setxattr(d / "c", "user.x", b"2")
    equal(os.getxattr(d / "b", "user.x"), b"2")
    assert (d / "c").stat().st_ctime_ns >= changed


@on_mount()
def permissions_rule(d):
    (d / "f").touch()
    os.setxattr(d / "f", "user.x", b"1")
    os.chmod(d / "f", 0o600)
    raises(errno.EACCES, as_user, NOBODY, NOBODY, os.getxattr, d / "f", "user.x")
    raises(errno.EACCES, as_user, NOBODY, NOBODY, os.setxattr, d / "f", "user.x", b"2")
    os.chmod(d / "f", 0o644)
    equal(as_user(NOBODY, NOBODY, os.getxattr, d / "f", "user.x"), b"1")
