"""A whole tree as a value, so that two trees compare: content, type, owner, mode, times, links, xattrs."""

import hashlib
import os
import stat


def snapshot(root, times=True, xattrs=True) -> dict:
    """Path below `root` → facts. Hard links show as groups of equal first names. Directory sizes are left out."""
    root = os.fsencode(str(root))
    facts, first_names = {}, {}

    def note(path):
        status = os.lstat(path)
        name = os.path.relpath(path, root)
        fact = {"mode": status.st_mode, "uid": status.st_uid, "gid": status.st_gid}
        if times:
            fact["mtime"] = status.st_mtime_ns
        if stat.S_ISREG(status.st_mode):
            fact["size"], fact["content"] = status.st_size, digest(path)
        if not stat.S_ISDIR(status.st_mode):
            fact["links"] = status.st_nlink
            if status.st_nlink > 1:
                fact["same as"] = first_names.setdefault(status.st_ino, name)
        if stat.S_ISLNK(status.st_mode):
            fact["target"] = os.readlink(path)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            fact["device"] = status.st_rdev
        if xattrs:
            fact["xattrs"] = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in sorted(os.listxattr(path, follow_symlinks=False))}
        facts[name] = fact

    note(root)
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(names + files):
            note(os.path.join(directory, name))
    return facts


def digest(path) -> str:
    total = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def same_trees(got: dict, want: dict, what="tree"):
    for name in sorted(set(got) | set(want)):
        assert name in got, f"{what}: {name!r} is missing"
        assert name in want, f"{what}: {name!r} is extra"
        for fact in sorted(set(got[name]) | set(want[name])):
            left, right = got[name].get(fact), want[name].get(fact)
            assert left == right, f"{what}: {name!r}: {fact} is {left!r}, want {right!r}"
