"""kill -9 at random moments of a rotation, and a new mount each time: no byte is wrong, and what was begun ends by itself."""

import os
import random
import subprocess
import time

from harness import equal, full_run, on_volume
from rotation import answer, sample, verify
from rotation_contents import wait_until, zone

#: Tests/campaigns/rotation-kills sets the number.
KILLS = int(os.environ.get("LETHEFS_KILLS", 40 if full_run() else 8))


@on_volume(limit=120 + 20 * KILLS, needs=["lethefs"])
def sweeps_survive(volume):
    chance = random.Random(int(os.environ.get("LETHEFS_SEED", "1")))
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top, files=60)
    big = os.urandom(9 << 20)
    (top / "big").write_bytes(big)
    os.sync()
    environment = {**os.environ, **{name: str(value) for name, value in volume.env.items()}}
    moments = []
    for number in range(KILLS):
        if not answer(volume, "reencrypt", top, "--status")["pending"]:
            words = ["kek", "rotate", top] if number % 3 == 2 else ["reencrypt", top, "--background", "--rate", "20"]
            with open(os.devnull, "w") as nothing:
                job = subprocess.Popen([volume.backend.program(), *map(str, words)], env=environment, stdout=nothing,
                                       stderr=nothing)
        else:
            job = None
        moments.append(chance.random() * 0.6)
        time.sleep(moments[-1])
        volume.kill()
        if job:
            job.wait(30)
        volume.mount()
        equal((top / "big").read_bytes(), big, f"big, after kill {number + 1}, {moments[-1]:.3f} s into it")
        if number % 4 == 3:
            verify(top, contents)
    wait_until(lambda: not zone(volume, top)["pending"], limit=120)
    counted = zone(volume, top)
    equal(counted["mixed"], 0, "files with several DEKs")
    newest = max(kek["version"] for kek in counted["keks"])
    for kek in counted["keks"]:
        if kek["version"] != newest:
            equal((kek["files"], kek["directories"]), (0, 0), f"under KEK v{kek['version']}")
            answer(volume, "kek", "retire", top, str(kek["version"]))
    verify(top, contents)
    volume.unmount()
    volume.check()
