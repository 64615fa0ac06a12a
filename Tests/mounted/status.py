"""`lethefs status` tells the truth, whatever the mount is busy with."""

import json
import os
import signal

from harness import equal, on_volume


def asked(volume, place):
    answer = volume.command("status", place, "--json")
    told = json.loads(answer.stdout)
    return told[0] if isinstance(told, list) else told


@on_volume(limit=90, needs=["lethefs"])
def mounted_and_not(volume):
    volume.init()
    assert not asked(volume, volume.lower).get("pid"), "a pid before the mount"
    volume.mount()
    for place in (volume.lower, volume.mountpoint):
        told = asked(volume, place)
        equal(told["pid"], volume.daemon)
        equal(told["mountPoint"], str(volume.mountpoint))
    volume.unmount()
    assert not asked(volume, volume.lower).get("pid"), "a pid after the unmount"
    for _ in range(6):  # What a killed daemon left behind must not be taken for the one that serves now.
        volume.mount()
        equal(asked(volume, volume.lower).get("pid"), volume.daemon, "the pid after kill -9 and a new mount")
        volume.kill()
        assert not asked(volume, volume.lower).get("pid"), "a pid after kill -9"
    volume.mount().unmount()


@on_volume(limit=120, needs=["lethefs"])
def under_load(volume):
    """While programs write and fsync, the volume does not pass for unmounted."""
    volume.init().mount()
    writers = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            while True:
                with open(volume.mountpoint / f"f{number}", "wb", buffering=0) as file:
                    for _ in range(50):
                        file.write(os.urandom(5000))
                        os.fsync(file.fileno())
        writers.append(pid)
    try:
        wrong = [told for told in (asked(volume, volume.lower) for _ in range(60)) if told.get("pid") != volume.daemon]
    finally:
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not wrong, f"{len(wrong)} of 60 answers were wrong: {json.dumps(wrong[0])[:300]}"
    volume.unmount().check()
