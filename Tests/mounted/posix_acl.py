"""POSIX ACLs by setfacl and getfacl: stored, enforced, inherited."""

import errno
import os
import struct

from harness import as_user, equal, on_mount, on_volume, raises, run

ALICE, BOB, TEAM = 60001, 60002, 60010
#: As the kernel has it: version 2; the owner, ALICE, the group, a mask, others.
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 6, who) for tag, who in (
    (1, 0xFFFFFFFF), (2, ALICE), (4, 0xFFFFFFFF), (16, 0xFFFFFFFF), (32, 0xFFFFFFFF)))


def setfacl(*words):
    run(["setfacl", *words])


def getfacl(path) -> list[str]:
    text = run(["getfacl", "--omit-header", "--absolute-names", "--numeric", path]).stdout
    return [line for line in text.split("\n") if line]


@on_mount()
def access_list_is_kept(d):
    (d / "f").touch()
    setfacl("-m", f"u:{ALICE}:rw,g:{TEAM}:r", d / "f")
    equal(getfacl(d / "f"), ["user::rw-", f"user:{ALICE}:rw-", "group::r--", f"group:{TEAM}:r--", "mask::rw-",
                             "other::r--"])
    equal((d / "f").stat().st_mode & 0o777, 0o664, "the mask shows in the mode")
    setfacl("-x", f"u:{ALICE}", d / "f")
    assert f"user:{ALICE}:rw-" not in getfacl(d / "f")
    setfacl("-b", d / "f")
    equal(getfacl(d / "f"), ["user::rw-", "group::r--", "other::r--"])


@on_mount()
def access_list_is_enforced(d):
    path = d / "f"
    path.write_bytes(b"shared")
    os.chmod(path, 0o600)
    setfacl("-m", f"u:{ALICE}:rw,g:{TEAM}:r", path)
    equal(as_user(ALICE, ALICE, path.read_bytes), b"shared")
    as_user(ALICE, ALICE, path.write_bytes, b"by alice")
    equal(as_user(BOB, TEAM, path.read_bytes), b"by alice")
    equal(as_user(BOB, BOB, path.read_bytes, groups=[TEAM]), b"by alice")
    raises(errno.EACCES, as_user, BOB, TEAM, path.write_bytes, b"by bob")
    raises(errno.EACCES, as_user, BOB, BOB, path.read_bytes)
    setfacl("-m", f"u:{ALICE}:-", path)
    raises(errno.EACCES, as_user, ALICE, ALICE, path.read_bytes)


@on_mount()
def mask_limits(d):
    path = d / "f"
    path.write_bytes(b"x")
    setfacl("-m", f"u:{ALICE}:rw", path)
    os.chmod(path, 0o600)
    assert f"user:{ALICE}:rw-" in "".join(getfacl(path)), getfacl(path)
    assert "mask::---" in getfacl(path), getfacl(path)
    raises(errno.EACCES, as_user, ALICE, ALICE, path.read_bytes)


@on_mount()
def default_list_is_inherited(d):
    (d / "top").mkdir()
    setfacl("-d", "-m", f"u:{ALICE}:rwx,g:{TEAM}:rx,o::-", d / "top")
    (d / "top/file").touch()
    (d / "top/dir").mkdir()
    (d / "top/dir/deep").touch()
    os.mkfifo(d / "top/fifo")
    defaults = ["default:user::rwx", f"default:user:{ALICE}:rwx", "default:group::r-x", f"default:group:{TEAM}:r-x",
                "default:mask::rwx", "default:other::---"]
    equal([line for line in getfacl(d / "top/dir") if line.startswith("default:")], defaults)
    assert f"user:{ALICE}:rwx" in getfacl(d / "top/dir")
    for name in ("file", "dir/deep", "fifo"):
        lines = getfacl(d / "top" / name)
        assert any(line.startswith(f"user:{ALICE}:rwx") for line in lines), (name, lines)
        assert "mask::rw-" in lines and "other::---" in lines, (name, lines)
        assert not any(line.startswith("default:") for line in lines), (name, lines)
    equal((d / "top/file").stat().st_mode & 0o777, 0o660, "mode by the inherited mask")


@on_mount()
def umask_is_ignored_under_a_default_list(d):
    (d / "top").mkdir()
    setfacl("-d", "-m", "u::rwx,g::rwx,o::rx", d / "top")
    os.umask(0o077)
    os.close(os.open(d / "top/file", os.O_CREAT | os.O_WRONLY, 0o666))
    os.mkdir(d / "top/dir", 0o777)
    os.umask(0o022)
    equal((d / "top/file").stat().st_mode & 0o777, 0o664)
    equal((d / "top/dir").stat().st_mode & 0o777, 0o775)


@on_mount()
def default_lists_only_for_directories(d):
    (d / "f").touch()
    value = bytes.fromhex("02000000" "01000700ffffffff" "04000500ffffffff" "20000000ffffffff")
    raises((errno.EACCES, errno.EPERM), os.setxattr, d / "f", "system.posix_acl_default", value)


@on_mount()
def removing_the_default_list(d):
    (d / "top").mkdir()
    setfacl("-d", "-m", f"u:{ALICE}:rwx", d / "top")
    setfacl("-k", d / "top")
    (d / "top/file").touch()
    equal(getfacl(d / "top/file"), ["user::rw-", "group::r--", "other::r--"])


@on_mount()
def only_the_owner_sets(d):
    (d / "f").touch()
    value = bytes.fromhex("02000000" "01000600ffffffff" "04000400ffffffff" "20000400ffffffff")
    raises(errno.EPERM, as_user, ALICE, ALICE, os.setxattr, d / "f", "system.posix_acl_access", value)
    os.chown(d / "f", ALICE, ALICE)
    as_user(ALICE, ALICE, os.setxattr, d / "f", "system.posix_acl_access", value)


@on_mount()
def directory_lists_grant_creation(d):
    (d / "box").mkdir(mode=0o700)
    raises(errno.EACCES, as_user, ALICE, ALICE, (d / "box/new").touch)
    setfacl("-m", f"u:{ALICE}:rwx", d / "box")
    as_user(ALICE, ALICE, (d / "box/new").touch)
    equal((d / "box/new").stat().st_uid, ALICE)


@on_mount()
def a_list_by_one_outside_the_group_takes_set_gid(d):
    """posix_acl_update_mode of Linux, CVE-2016-7097."""
    for name, groups, left in (("outside", [], 0o775), ("inside", [TEAM], 0o2775)):
        path = d / name
        path.touch()
        os.chown(path, ALICE, TEAM)
        os.chmod(path, 0o2775)
        as_user(ALICE, ALICE, setfacl, "-m", f"u:{BOB}:rwx", path, groups=groups)
        equal(path.stat().st_mode & 0o7777, left, name)
    setfacl("-m", f"u:{ALICE}:rwx", d / "inside")
    equal((d / "inside").stat().st_mode & 0o7777, 0o2775, "root's")


@on_volume(limit=60, needs=["lethefs"])
def a_lower_file_system_without_lists(volume):
    """Others than the owner get in by the mode, as everywhere; and there is no list to be set."""
    run(["mount", "-t", "ramfs", "none", volume.lower])
    try:
        volume.init().mount()
        top = volume.mountpoint
        (top / "f").write_bytes(b"by mode")
        os.chmod(top / "f", 0o644)
        os.chown(top / "f", ALICE, TEAM)
        os.mkdir(top / "dir", 0o755)
        os.chmod(top / "dir", 0o755)
        equal(as_user(BOB, TEAM, (top / "f").read_bytes), b"by mode")
        equal(as_user(BOB, BOB, os.listdir, top / "dir"), [])
        raises(errno.EOPNOTSUPP, os.setxattr, top / "f", "system.posix_acl_access", ACL)
        volume.unmount().check()
    finally:
        run(["umount", volume.lower])
