"""Lower inode numbers are given again. What a sweep has seen, or replaced, must not be taken for what has its number now."""

import os
import stat

from harness import equal, on_volume
from harness.disk import SmallDisk


@on_volume(limit=120, needs=["lethefs"])
def a_file_gets_the_number_of_a_link_that_a_sweep_replaced(volume):
    """On an ext4 of its own: that gives the lowest free number of a group, so what was freed comes again soon."""
    disk = SmallDisk(volume)
    volume.init().mount()
    top = volume.mountpoint
    os.symlink("target", top / "link")
    number = os.lstat(top / "link").st_ino
    volume.command("kek", "rotate", top)
    volume.command("reencrypt", top)
    equal(os.readlink(top / "link"), "target")
    assert os.lstat(top / "link").st_ino != number, "the link was not sealed anew"
    for attempt in range(2000):
        path = top / f"file{attempt}"
        path.write_bytes(b"x" * 100)
        equal(path.read_bytes(), b"x" * 100)
        info = os.lstat(path)
        assert stat.S_ISREG(info.st_mode), f"{path} is something else"
        if info.st_ino == number:
            break
    else:
        raise AssertionError("the number did not come again")
    volume.unmount()
    volume.check()
    disk.remove()
