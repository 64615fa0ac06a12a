"""rsync, tar, cp and an editor's ways to save, each there and back without a difference."""

import os
import random
import shutil
import stat

from harness import equal, on_mount, on_volume, run
from harness.tree import same_trees, snapshot


def sample_tree(top):
    """A tree with everything that a copy can lose."""
    chance = random.Random(11)
    for path in ("a/b/c", "empty", "many"):
        (top / path).mkdir(parents=True)
    for size in (0, 1, 3551, 3552, 3553, 7616, 7617, 100_000, 1 << 20):
        (top / f"a/size {size}").write_bytes(chance.randbytes(size))
    for number in range(200):
        (top / f"many/{number}").write_bytes(chance.randbytes(number * 7))
    with open(top / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    (top / ("long " * 51)[:255]).write_bytes(b"long name")
    (top / "newline\nand \\ and é").write_bytes(b"odd name")
    os.link(top / "a/size 3552", top / "a/b/linked")
    os.link(top / "a/size 3552", top / "empty/linked too")
    os.symlink("../a/size 1", top / "a/b/c/link")
    os.symlink("t" * 3000, top / "long link")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chmod(top / "a/size 0", 0)
    os.chmod(top / "a/size 1", 0o4711)
    os.chown(top / "a/size 3553", 1234, 5678)
    os.setxattr(top / "a/size 1", "user.comment", b"value of \0 any kind")
    os.setxattr(top / "a", "user.directory", b"x")
    run(["setfacl", "-m", "u:1234:rw,g:5678:r", top / "a/size 7616"])
    run(["setfacl", "-d", "-m", "u:1234:rwx", top / "many"])
    for number, (directory, names, files) in enumerate(os.walk(top, topdown=False)):
        for name in names + files:
            os.utime(os.path.join(directory, name), ns=(10**18 + number, 10**18 + 123_456_789 + len(name)),
                     follow_symlinks=False)
    os.utime(top, ns=(10**18, 10**18))


@on_volume(limit=120)
def rsync_there_and_back(volume):
    volume.init().mount()
    source, there, back = volume.root / "source", volume.mountpoint / "there", volume.root / "back"
    source.mkdir()
    sample_tree(source)
    want = snapshot(source)
    run(["rsync", "-aHAX", "--numeric-ids", f"{source}/", f"{there}/"])
    same_trees(snapshot(there), want, "after rsync to the mount")
    equal(run(["rsync", "-aHAXnic", "--numeric-ids", "--delete", f"{source}/", f"{there}/"]).stdout, "", "rsync -n")
    volume.remount()
    same_trees(snapshot(there), want, "after a remount")
    equal(run(["rsync", "-aHAXni", "--numeric-ids", "--delete", f"{source}/", f"{there}/"]).stdout, "", "rsync -n")
    run(["rsync", "-aHAX", "--numeric-ids", f"{there}/", f"{back}/"])
    same_trees(snapshot(back), want, "after rsync back")
    run(["rsync", "-aHAX", "--inplace", "--no-whole-file", "--ignore-times", f"{source}/", f"{there}/"])
    same_trees(snapshot(there), want, "after rsync --inplace")
    volume.unmount().check()


@on_volume(limit=120)
def tar_and_cp_there_and_back(volume):
    volume.init().mount()
    source, archive = volume.root / "source", volume.root / "archive.tar"
    source.mkdir()
    sample_tree(source)
    want = snapshot(source)
    options = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=posix"]
    run(["tar", *options, "-cf", archive, "-C", source, "."])
    (volume.mountpoint / "tar").mkdir()
    run(["tar", *options, "-xpf", archive, "-C", volume.mountpoint / "tar"])
    same_trees(snapshot(volume.mountpoint / "tar"), want, "after tar -x on the mount")
    run(["tar", *options, "-cf", volume.mountpoint / "inner.tar", "-C", volume.mountpoint / "tar", "."])
    (volume.root / "out").mkdir()
    run(["tar", *options, "-xpf", volume.mountpoint / "inner.tar", "-C", volume.root / "out"])
    same_trees(snapshot(volume.root / "out"), want, "after tar from the mount")
    run(["cp", "-a", source, volume.mountpoint / "cp"])
    same_trees(snapshot(volume.mountpoint / "cp"), want, "after cp -a to the mount")
    run(["cp", "-a", volume.mountpoint / "cp", volume.mountpoint / "cp2"])
    same_trees(snapshot(volume.mountpoint / "cp2"), want, "after cp -a within the mount")
    shutil.rmtree(volume.mountpoint / "cp2")
    run(["mv", volume.mountpoint / "cp", volume.root / "moved"])
    same_trees(snapshot(volume.root / "moved"), want, "after mv from the mount")
    volume.unmount().check()


def save(path, data, sync):
    """Write a new file, rename it over the old one."""
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    shutil.copymode(path, temporary)
    os.replace(temporary, path)
    if sync:
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


@on_mount(limit=60)
def saving_by_rename(d):
    path = d / "text"
    path.write_bytes(b"0")
    os.chmod(path, 0o640)
    for turn in range(200):
        data = (f"version {turn}\n" * (turn * 3 + 1)).encode()
        save(path, data, sync=turn % 4 == 0)
        equal(path.read_bytes(), data, f"version {turn}")
        equal(path.stat().st_mode & 0o777, 0o640)
    equal(os.listdir(d), ["text"])


@on_mount(limit=60)
def saving_with_a_backup(d):
    """As vim does: old → old~, write anew, fsync, remove the backup; and its swap file, written in place."""
    path, backup = d / "text", d / "text~"
    path.write_bytes(b"first")
    swap = os.open(d / ".text.swp", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    for turn in range(100):
        os.pwrite(swap, bytes([turn]) * 4096, 4096 * (turn % 5))
        os.fsync(swap)
        os.rename(path, backup)
        with open(path, "wb") as file:
            file.write(b"x" * turn * 100)
            file.flush()
            os.fsync(file.fileno())
        os.unlink(backup)
        equal(path.read_bytes(), b"x" * turn * 100)
    os.close(swap)
    os.unlink(d / ".text.swp")
    equal(os.listdir(d), ["text"])


@on_mount(limit=60)
def saving_in_place(d):
    """As sed -i, ex and shells do: O_TRUNC and write, hard links kept."""
    path = d / "text"
    path.write_bytes(b"a" * 9000)
    os.link(path, d / "other")
    for turn in range(100):
        path.write_bytes(b"b" * (turn * 91))
        equal((d / "other").read_bytes(), b"b" * (turn * 91))
    run(["sed", "-i", "s/b/c/g", path])
    equal(path.read_bytes(), b"c" * 9009)
    run(["sh", "-c", f"echo more >> {path} && : > {d}/other"])
    equal((d / "other").stat().st_size, 0)
