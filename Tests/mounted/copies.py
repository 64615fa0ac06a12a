"""The lower tree is all there is: a copy of it, by any tool, is a whole volume."""

import os
import shutil

from harness import on_volume, run
from harness.tree import same_trees, snapshot
from programs_files import sample_tree


def copied_by(volume, copy):
    volume.init().mount()
    (volume.mountpoint / "tree").mkdir()
    sample_tree(volume.mountpoint / "tree")
    os.utime(volume.mountpoint, ns=(10**18, 10**18))
    want = snapshot(volume.mountpoint)
    volume.unmount()
    other = volume.root / "copy"
    copy(volume.lower, other)
    os.rename(volume.lower, volume.root / "original")
    other.rename(volume.lower)
    volume.mount()
    same_trees(snapshot(volume.mountpoint), want, "the copy")
    (volume.mountpoint / "new").write_bytes(b"written to the copy")
    volume.remount()
    assert (volume.mountpoint / "new").read_bytes() == b"written to the copy"
    volume.unmount().check()


@on_volume(limit=120)
def by_cp(volume):
    copied_by(volume, lambda source, target: run(["cp", "-a", source, target]))


@on_volume(limit=120)
def by_rsync(volume):
    copied_by(volume, lambda source, target: run(["rsync", "-aHAX", "--sparse", f"{source}/", f"{target}/"]))


@on_volume(limit=120)
def by_tar(volume):
    def copy(source, target):
        target.mkdir()
        archive = volume.root / "backup.tar"
        options = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner"]
        run(["tar", *options, "-cf", archive, "-C", source, "."])
        run(["tar", *options, "-xpf", archive, "-C", target])
    copied_by(volume, copy)


@on_volume(limit=120, needs=["sealed"])
def restored_part(volume):
    """One file of a backup put back in its place reads as it did."""
    volume.init().mount()
    (volume.mountpoint / "kept").write_bytes(b"kept" * 5000)
    volume.unmount()
    shutil.copytree(volume.lower, volume.root / "backup", symlinks=True)
    volume.mount()
    (volume.mountpoint / "kept").unlink()
    volume.unmount()
    run(["rsync", "-aHAX", "--ignore-existing", f"{volume.root}/backup/", f"{volume.lower}/"])
    volume.mount()
    assert (volume.mountpoint / "kept").read_bytes() == b"kept" * 5000
    volume.unmount()
