"""Owners, modes, times, statfs."""

import errno
import os
import stat
import time

from harness import as_user, equal, on_mount, raises
from harness.process import in_child

NOBODY = 65534
FUTURE_NS = 4_102_444_800_123_456_789  # the year 2100


def mode(path):
    return os.lstat(path).st_mode & 0o7777


@on_mount()
def modes(d):
    (d / "f").touch()
    (d / "d").mkdir()
    for bits in (0, 0o400, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o7777):
        for name in ("f", "d"):
            os.chmod(d / name, bits)
            equal(mode(d / name), bits, f"mode of {name}")


@on_mount()
def files_of_every_mode_stay_readable_to_root(d):
    for bits in (0, 0o200, 0o444, 0o111):
        path = d / f"{bits:o}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, bits)
        os.write(fd, b"x" * 5000)
        os.close(fd)
        equal(mode(path), bits)
        equal(path.read_bytes(), b"x" * 5000)


@on_mount()
def owners(d):
    (d / "f").touch()
    os.chown(d / "f", 12345, 54321)
    status = (d / "f").stat()
    equal((status.st_uid, status.st_gid), (12345, 54321))
    os.chown(d / "f", -1, 777)
    equal(((d / "f").stat().st_uid, (d / "f").stat().st_gid), (12345, 777))
    (d / "dir").mkdir()
    os.chown(d / "dir", 4_000_000_000, 4_000_000_001)
    equal((d / "dir").stat().st_uid, 4_000_000_000)


@on_mount()
def chown_clears_set_id_bits(d):
    (d / "f").touch()
    os.chmod(d / "f", 0o6755)
    as_user_owner = lambda: os.chown(d / "f", -1, NOBODY)  # noqa: E731
    os.chown(d / "f", NOBODY, NOBODY)
    os.chmod(d / "f", 0o6755)
    as_user(NOBODY, NOBODY, as_user_owner)
    equal(mode(d / "f"), 0o755)


@on_mount()
def write_by_another_clears_set_id_bits(d):
    for path, bits, left in ((d / "suid", 0o4777, 0o777), (d / "sgid", 0o2777, 0o777)):
        path.touch()
        os.chmod(path, bits)
        equal(mode(path), bits)
        as_user(NOBODY, NOBODY, lambda: path.write_bytes(b"x") and None)
        equal(mode(path), left, path.name)
    (d / "cut").write_bytes(b"xxx")
    os.chmod(d / "cut", 0o4777)
    as_user(NOBODY, NOBODY, os.truncate, d / "cut", 1)
    equal(mode(d / "cut"), 0o777, "after truncate")


@on_mount()
def copying_and_allocating_by_another_clear_set_id_bits(d):
    (d / "source").write_bytes(b"x" * 9000)

    def copy(path):
        with open(d / "source", "rb") as source, open(path, "r+b") as target:
            assert os.copy_file_range(source.fileno(), target.fileno(), 5000) > 0

    def allocate(path):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 20_000)

    for name, change in (("copy", copy), ("allocate", allocate)):
        path = d / name
        path.write_bytes(b"y" * 100)
        os.chmod(path, 0o6777)
        as_user(NOBODY, NOBODY, change, path)
        equal(mode(path), 0o777, name)


@on_mount()
def root_write_keeps_set_id_bits(d):
    (d / "f").touch()
    os.chmod(d / "f", 0o6755)
    with open(d / "f", "r+b") as file:
        file.write(b"x" * 5000)
    equal(mode(d / "f"), 0o6755)


@on_mount()
def umask_applies(d):
    def make():
        os.umask(0o027)
        os.mkdir(d / "dir")
        os.close(os.open(d / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkfifo(d / "fifo", 0o666)
    in_child(make)
    equal((mode(d / "dir"), mode(d / "file"), mode(d / "fifo")), (0o750, 0o640, 0o640))


@on_mount()
def set_gid_directory_hands_its_group_down(d):
    (d / "g").mkdir()
    os.chown(d / "g", 0, 4321)
    os.chmod(d / "g", 0o2775)
    (d / "g/file").touch()
    (d / "g/dir").mkdir()
    os.symlink("x", d / "g/link")
    for name in ("file", "dir", "link"):
        equal(os.lstat(d / "g" / name).st_gid, 4321, name)
    equal(mode(d / "g/dir"), 0o2755)
    equal(mode(d / "g/file"), 0o644)


@on_mount()
def times_to_the_nanosecond(d):
    (d / "f").touch()
    (d / "d").mkdir()
    for name in ("f", "d"):
        for instant in (0, 1, 999_999_999, 1_234_567_890_987_654_321, FUTURE_NS, -1_500_000_000):
            os.utime(d / name, ns=(instant, instant + 1))
            status = (d / name).stat()
            equal((status.st_atime_ns, status.st_mtime_ns), (instant, instant + 1), name)


@on_mount()
def times_move_with_the_operations(d):
    path = d / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(10, 10))
    changed = path.stat().st_ctime_ns
    time.sleep(0.02)
    with open(path, "ab") as file:
        file.write(b"y")
    after = path.stat()
    assert after.st_mtime_ns > 10 and after.st_ctime_ns > changed, "a write moves mtime and ctime"
    os.utime(path, ns=(10, 10))
    changed = path.stat().st_ctime_ns
    time.sleep(0.02)
    os.chmod(path, 0o600)
    assert path.stat().st_ctime_ns > changed, "chmod moves ctime"
    equal(path.stat().st_mtime_ns, 10, "chmod leaves mtime")
    os.truncate(path, 1)
    assert path.stat().st_mtime_ns > 10, "truncate moves mtime"
    assert abs(path.stat().st_mtime - time.time()) < 5, "mtime is now"
    os.utime(d, ns=(10, 10))
    (d / "new").touch()
    assert d.stat().st_mtime_ns > 10, "a new entry moves the directory's mtime"
    os.utime(d, ns=(10, 10))
    (d / "new").unlink()
    assert d.stat().st_mtime_ns > 10, "an unlink moves the directory's mtime"


@on_mount()
def mtime_set_after_writing_stays(d):
    """With a writeback cache, late pages must not move an mtime that was set after the write (tar, rsync, cp -p)."""
    for number in range(50):
        with open(d / f"f{number}", "wb", buffering=0) as file:
            file.write(b"x" * 20_000)
            os.utime(file.fileno(), ns=(5, 1_000_000_000 + number))
    os.sync()
    for number in range(50):
        equal((d / f"f{number}").stat().st_mtime_ns, 1_000_000_000 + number)
        equal((d / f"f{number}").stat().st_size, 20_000)


@on_mount()
def directory_link_counts(d):
    equal(d.stat().st_nlink, 2)
    (d / "a").mkdir()
    (d / "b").mkdir()
    (d / "file").touch()
    equal(d.stat().st_nlink, 4)
    (d / "a").rmdir()
    equal(d.stat().st_nlink, 3)


@on_mount()
def blocks_are_counted(d):
    (d / "f").write_bytes(b"x" * 100_000)
    fd = os.open(d / "f", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    used = (d / "f").stat().st_blocks * 512
    assert 100_000 <= used <= 150_000, used


@on_mount()
def statfs(d):
    answer = os.statvfs(d)
    equal(answer.f_namemax, 255, "f_namemax")
    assert answer.f_blocks >= answer.f_bfree >= answer.f_bavail > 0, answer
    assert answer.f_files > 0 and answer.f_bsize > 0 and answer.f_frsize > 0, answer


@on_mount()
def access_checks(d):
    (d / "f").write_bytes(b"secret")
    os.chmod(d / "f", 0o600)
    raises(errno.EACCES, as_user, NOBODY, NOBODY, lambda: (d / "f").read_bytes())
    raises(errno.EACCES, as_user, NOBODY, NOBODY, lambda: (d / "new").touch())
    raises(errno.EACCES, as_user, NOBODY, NOBODY, os.unlink, d / "f")
    raises(errno.EPERM, as_user, NOBODY, NOBODY, os.chmod, d / "f", 0o777)
    raises(errno.EPERM, as_user, NOBODY, NOBODY, os.chown, d / "f", NOBODY, NOBODY)
    os.chmod(d, 0o700)
    raises(errno.EACCES, as_user, NOBODY, NOBODY, os.stat, d / "f")
    os.chmod(d, 0o755)


@on_mount()
def another_user_works(d):
    """What one's own directory allows, as any user of an allow_other mount."""
    os.chown(d, NOBODY, NOBODY)

    def work():
        os.umask(0o077)
        (d / "sub").mkdir()
        for bits in (0, 0o200, 0o444, 0o600):
            path = d / f"sub/{bits:o}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, bits)
            os.write(fd, b"y" * 6000)
            os.close(fd)
            os.chmod(path, 0o600)
            equal(path.read_bytes(), b"y" * 6000)
        os.rename(d / "sub/600", d / "moved")
        os.link(d / "moved", d / "linked")
        os.symlink("moved", d / "symbolic")
        os.setxattr(d / "moved", "user.x", b"v")
        equal(os.getxattr(d / "moved", "user.x"), b"v")
        return sorted(os.listdir(d))

    equal(as_user(NOBODY, NOBODY, work), ["linked", "moved", "sub", "symbolic"])
    for name in ("moved", "symbolic", "sub"):
        status = os.lstat(d / name)
        equal((status.st_uid, status.st_gid), (NOBODY, NOBODY), f"owner of {name}")


@on_mount()
def sticky_directory(d):
    (d / "tmp").mkdir()
    os.chmod(d / "tmp", 0o1777)
    (d / "tmp/f").touch()
    raises(errno.EPERM, as_user, NOBODY, NOBODY, os.unlink, d / "tmp/f")
    raises(errno.EPERM, as_user, NOBODY, NOBODY, os.rename, d / "tmp/f", d / "tmp/g")
    assert stat.S_ISREG((d / "tmp/f").stat().st_mode)


@on_mount()
def supplementary_groups(d):
    """The daemon must see all groups of the caller, not only the first."""
    (d / "f").write_bytes(b"for the group")
    os.chown(d / "f", 0, 4444)
    os.chmod(d / "f", 0o640)
    equal(as_user(NOBODY, NOBODY, lambda: (d / "f").read_bytes(), groups=[4444]), b"for the group")
    os.chown(d / "f", NOBODY, NOBODY)
    as_user(NOBODY, NOBODY, os.chown, d / "f", -1, 4444, groups=[4444])
    equal((d / "f").stat().st_gid, 4444)
    raises(errno.EPERM, as_user, NOBODY, NOBODY, os.chown, d / "f", -1, 5555, groups=[4444])
