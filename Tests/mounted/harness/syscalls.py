"""System calls that Python's os module lacks, raising OSError as os does."""

import ctypes
import mmap
import os

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO_RANGE = 1, 2, 8, 16
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
for _name in ("readdir", "telldir", "closedir", "rewinddir"):
    getattr(_libc, _name).argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


def _checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old, new, flags):
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)))


def link_following(old, new):
    """linkat with AT_SYMLINK_FOLLOW, which os.link does not pass on."""
    _checked(_libc.linkat(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), 0x400))


def fallocate(fd, mode, offset, length):
    _checked(_libc.fallocate(fd, mode, offset, length))


def aligned(data: bytes):
    """The bytes in memory that O_DIRECT accepts."""
    memory = mmap.mmap(-1, max(len(data), 4096))
    memory[:len(data)] = data
    return memoryview(memory)[:len(data)]


class Directory:
    """A directory stream with positions: opendir(3), readdir(3), telldir(3), seekdir(3)."""

    def __init__(self, path):
        self._stream = _libc.opendir(os.fsencode(path))
        if not self._stream:
            _checked(-1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _libc.closedir(self._stream)

    def read(self):
        """The next entry's name, None at the end. `.` and `..` are names too."""
        ctypes.set_errno(0)
        entry = _libc.readdir(self._stream)
        if not entry:
            if ctypes.get_errno():
                _checked(-1)
            return None
        return ctypes.string_at(entry + 19)  # struct dirent on 64-bit Linux: d_name follows 8+8+2+1 bytes

    def tell(self):
        return _libc.telldir(self._stream)

    def seek(self, position):
        _libc.seekdir(self._stream, position)

    def rewind(self):
        _libc.rewinddir(self._stream)
