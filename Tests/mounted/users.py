"""Mounts by a plain user through fusermount3, and what other users see of a mount."""

import errno
import json
import os
import pwd
import shutil
import stat
from pathlib import Path

from harness import Volume, as_user, equal, on_volume, raises, run
from harness.fuse import is_mounted

USER, OTHER = "nobody", "daemon"
CONFIGURATION = Path("/etc/fuse.conf")


def ids(name):
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


class AllowOther:
    """`user_allow_other` in /etc/fuse.conf while a case runs, whatever was there before."""

    def __enter__(self):
        self.before = CONFIGURATION.read_bytes() if CONFIGURATION.exists() else None
        CONFIGURATION.write_bytes((self.before or b"") + b"\nuser_allow_other\n")

    def __exit__(self, *_):
        if self.before is None:
            CONFIGURATION.unlink()
        else:
            CONFIGURATION.write_bytes(self.before)


def personal(volume):
    """A volume of USER in the same work directory."""
    return Volume(volume.root / "personal", user=USER)


def work_as_owner(top):
    os.umask(0o022)
    for bits in (0, 0o200, 0o444, 0o600):
        fd = os.open(top / f"{bits:o}", os.O_RDWR | os.O_CREAT | os.O_EXCL, bits)
        os.write(fd, b"x" * 7000)
        os.fsync(fd)
        equal(os.pread(fd, 8000, 0), b"x" * 7000, f"through the first descriptor of mode {bits:o}")
        os.close(fd)
    raises(errno.EACCES, (top / "0").read_bytes)
    raises(errno.EACCES, (top / "200").read_bytes)
    with open(top / "200", "ab") as file:
        file.write(b"more")
    raises(errno.EACCES, (top / "444").write_bytes, b"")
    equal((top / "444").read_bytes(), b"x" * 7000)
    os.truncate(top / "200", 3553)
    os.rename(top / "0", top / "none")
    for name in ("none", "200"):
        os.chmod(top / name, 0o600)
    equal((top / "none").read_bytes(), b"x" * 7000)
    equal((top / "200").read_bytes(), b"x" * 3553)
    os.chmod(top / "none", 0)
    os.mkdir(top / "closed")
    (top / "closed/in").write_bytes(b"in")
    fd = os.open(top / "closed", os.O_RDONLY | os.O_DIRECTORY)
    os.chmod(top / "closed", 0)
    raises(errno.EACCES, os.listdir, top / "closed")
    equal(os.listdir(fd), ["in"], "through the descriptor of when it could be read")
    os.fsync(fd)
    os.close(fd)
    equal(os.stat(top / "closed").st_mode & 0o777, 0)
    os.chmod(top / "closed", 0o700)
    os.setxattr(top / "600", "user.x", b"1")
    os.symlink("600", top / "link")
    os.mkdir(top / "read only", 0o500)
    raises(errno.EACCES, (top / "read only/new").touch)
    raises(errno.EPERM, os.chown, top / "600", 0, 0)
    raises(errno.EPERM, os.mknod, top / "device", 0o20600, os.makedev(1, 3))
    run(["ls", "-laR", top])
    return sorted(os.listdir(top))


@on_volume(limit=120, needs=["daemon"])
def plain_user(volume):
    with personal(volume) as own:
        own.init()
        own.mount(options="")
        assert is_mounted(own.mountpoint)
        want = ["200", "444", "600", "closed", "link", "none", "read only"]
        equal(as_user(*ids(USER), work_as_owner, own.mountpoint), want)
        raises(errno.EACCES, as_user, *ids(OTHER), os.listdir, own.mountpoint)
        raises(errno.EACCES, os.listdir, own.mountpoint)
        own.unmount()
        own.check()
        own.mount(options="")
        equal(sorted(as_user(*ids(USER), os.listdir, own.mountpoint)), want)
        equal(as_user(*ids(USER), lambda: os.lstat(own.mountpoint / "none").st_mode & 0o777), 0)
        own.unmount()


@on_volume(limit=60, needs=["daemon", "lethefs"])
def reading_changes_nothing(volume):
    """Of one's own file that one may not write: a backup that goes by ctime would take it for changed, each time."""
    with personal(volume) as own:
        own.init().mount(options="")

        def make():
            for bits in (0o400, 0o444):
                with open(own.mountpoint / f"{bits:o}", "wb") as file:
                    file.write(b"x" * 7000)
                os.chmod(own.mountpoint / f"{bits:o}", bits)

        def look():
            return [os.stat(own.mountpoint / name).st_ctime_ns for name in ("400", "444")]

        def read():
            return [(own.mountpoint / name).read_bytes() for name in ("400", "444")]

        as_user(*ids(USER), make)
        own.remount(options="")
        before = as_user(*ids(USER), look)
        own.remount(options="")
        equal(as_user(*ids(USER), read), [b"x" * 7000] * 2)
        own.remount(options="")
        equal(as_user(*ids(USER), look), before, "ctimes")
        own.unmount()


@on_volume(limit=60, needs=["daemon", "lethefs"])
def read_only_files_have_page_trees(volume):
    """Stored once they are closed, by a daemon that may not write to them."""
    with personal(volume) as own:
        own.init("--integrity", "tree").mount(options="")

        def make():
            with open(own.mountpoint / "f", "wb") as file:
                file.write(b"x" * (3 << 20))
                os.fchmod(file.fileno(), 0o444)

        as_user(*ids(USER), make)
        own.unmount()
        nodes = [path.stat().st_size for path in (own.lower / ".lethefs/trees").iterdir()]
        assert len(nodes) == 1 and nodes[0] > 4096, f"files of nodes: {nodes}"
        own.check()


@on_volume(limit=90, needs=["daemon", "lethefs"])
def modes_that_keep_the_owner_out(volume):
    """Nothing that the daemon has to do of itself fails for them: attributes are listed and sealed anew, new directories get their headers."""
    with personal(volume) as own:
        own.init().mount(options="")

        def make():
            for bits in (0o444, 0o200, 0o000):
                path = own.mountpoint / f"{bits:o}"
                path.write_bytes(b"x" * 7000)
                os.setxattr(path, "user.kept", b"value")
                os.chmod(path, bits)
                equal(os.listxattr(path), ["user.kept"], f"mode {bits:o}")
            raises(errno.EACCES, os.setxattr, own.mountpoint / "444", "user.new", b"x")
            raises(errno.EACCES, os.getxattr, own.mountpoint / "200", "user.kept")
            for bits in (0o777, 0o700, 0o300, 0o077):
                os.umask(bits)
                path = own.mountpoint / f"umask {bits:o}"
                os.mkdir(path)
                equal(stat.S_IMODE(path.stat().st_mode), 0o777 & ~bits, f"umask {bits:o}")
                os.chmod(path, 0o700)
                (path / "inside").mkdir()

        def read():
            for bits in (0o444, 0o200, 0o000):
                path = own.mountpoint / f"{bits:o}"
                equal(stat.S_IMODE(path.stat().st_mode), bits)
                os.chmod(path, 0o600)
                equal(os.getxattr(path, "user.kept"), b"value", f"mode {bits:o}")
                equal(path.read_bytes(), b"x" * 7000)

        def closed():
            os.umask(0o022)
            for bits in (0o555, 0o444, 0o000):
                path = own.mountpoint / f"directory {bits:o}"
                (path / "below").mkdir(parents=True)
                (path / "empty").mkdir()
                (path / "below" / "file").write_bytes(b"x" * 7000)
                (path / "file").write_bytes(b"x" * 7000)
                os.symlink("target", path / "link")
                os.chmod(path / "empty", bits)
                os.chmod(path, bits)

        def open_again():
            for bits in (0o555, 0o444, 0o000):
                path = own.mountpoint / f"directory {bits:o}"
                os.chmod(path, 0o755)
                equal(sorted(os.listdir(path)), ["below", "empty", "file", "link"])
                equal((path / "file").read_bytes(), b"x" * 7000)
                equal(os.readlink(path / "link"), "target")
                os.rmdir(path / "empty")
                (path / "empty").mkdir(mode=bits)
                (path / "other").mkdir(mode=bits)
                os.rename(path / "other", path / "empty")
                os.rmdir(path / "empty")
                shutil.rmtree(path)

        as_user(*ids(USER), make)
        as_user(*ids(USER), closed)
        own.remount(options="")
        for words in (["kek", "rotate", own.mountpoint, "--compromised"], ["reencrypt", own.mountpoint]):
            own.command(*words)
        (zone,) = json.loads(own.command("coverage", own.mountpoint, "--json").stdout)["zones"]
        equal([kek["directories"] + kek["files"] for kek in zone["keks"] if kek["version"] == 1], [0], f"{zone}")
        equal([dek["files"] for dek in zone["deks"] if dek["version"] == 1], [0], f"{zone}")
        as_user(*ids(USER), open_again)
        own.unmount()
        own.check()
        own.mount(options="")
        as_user(*ids(USER), read)
        own.unmount()
        own.check()


@on_volume(limit=120, needs=["daemon", "lethefs"])
def plain_user_with_allow_other(volume):
    with AllowOther(), personal(volume) as own:
        own.init().mount(options="allow_other")
        as_user(*ids(USER), (own.mountpoint / "public").write_bytes, b"for all")
        equal(as_user(*ids(OTHER), (own.mountpoint / "public").read_bytes), b"for all")
        raises(errno.EACCES, as_user, *ids(OTHER), (own.mountpoint / "public").write_bytes, b"")
        raises(errno.EACCES, as_user, *ids(OTHER), (own.mountpoint / "new").touch)
        own.unmount()


@on_volume(limit=120, needs=["daemon", "lethefs"])
def plain_user_without_allow_other_in_the_configuration(volume):
    """fusermount3 refuses; the command says so and leaves nothing mounted."""
    if b"\nuser_allow_other" in b"\n" + CONFIGURATION.read_bytes():
        raise AssertionError("/etc/fuse.conf allows it on this machine: the refusal cannot be seen")
    with personal(volume) as own:
        own.init()
        answer = own.command("mount", own.lower, own.mountpoint, "-o", "allow_other", check=False)
        assert answer.returncode != 0 and answer.stderr.strip(), answer
        assert not is_mounted(own.mountpoint)


@on_volume(limit=60, needs=["daemon", "lethefs"])
def root_mount_without_allow_other(volume):
    volume.init().mount(options="")
    (volume.mountpoint / "f").touch()
    raises(errno.EACCES, as_user, *ids(OTHER), os.listdir, volume.mountpoint)
    volume.unmount()


@on_volume(limit=60, needs=["daemon", "lethefs"])
def another_user_cannot_mount_or_read_the_lower_keys(volume):
    """The state directory holds the token and its PIN: nobody else may read it."""
    volume.init().mount()
    assert any(volume.home.rglob("*")), "LETHEFS_HOME is empty"
    readable = as_user(*ids(OTHER), readable_files, volume.home) + as_user(*ids(OTHER), readable_files,
                                                                            volume.lower / ".lethefs")
    equal(readable, [], "files that another user can read")
    volume.unmount()


def readable_files(top):
    return [os.path.join(directory, name) for directory, _, names in os.walk(top) for name in names
            if os.access(os.path.join(directory, name), os.R_OK)]


@on_volume(limit=60, needs=["daemon", "lethefs"])
def read_only_mount(volume):
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"x" * 5000)
    os.setxattr(volume.mountpoint / "f", "user.x", b"1")
    volume.unmount()
    volume.mount(options="allow_other,ro")
    equal((volume.mountpoint / "f").read_bytes(), b"x" * 5000)
    equal(os.getxattr(volume.mountpoint / "f", "user.x"), b"1")
    for call in (lambda: (volume.mountpoint / "f").write_bytes(b""), lambda: (volume.mountpoint / "new").touch(),
                 lambda: os.unlink(volume.mountpoint / "f"), lambda: os.chmod(volume.mountpoint / "f", 0),
                 lambda: os.mkdir(volume.mountpoint / "d"), lambda: os.setxattr(volume.mountpoint / "f", "user.y", b""),
                 lambda: os.rename(volume.mountpoint / "f", volume.mountpoint / "g")):
        raises(errno.EROFS, call)
    volume.unmount()
