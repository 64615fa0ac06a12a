"""fio writes with checksums and verifies them, through each kind of I/O."""

from harness import full_run, on_mount, run

SIZE = "64m" if full_run() else "12m"


def fio(d, *words):
    run(["fio", "--name=verify", f"--directory={d}", f"--size={SIZE}", "--verify=crc32c", "--verify_fatal=1",
         "--do_verify=1", "--thread", "--output-format=terse", "--randseed=42", *words], limit=150)


@on_mount(limit=160)
def random_buffered(d):
    fio(d, "--rw=randwrite", "--bsrange=512-64k", "--blockalign=512", "--ioengine=psync", "--fsync=64", "--norandommap",
        "--verify_backlog=128")


@on_mount(limit=160)
def random_mapped(d):
    fio(d, "--rw=randwrite", "--bs=4k", "--ioengine=mmap")


@on_mount(limit=160)
def random_direct(d):
    fio(d, "--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--direct=1", "--iodepth=8")


@on_mount(limit=160)
def sequential_direct(d):
    fio(d, "--rw=write", "--bs=1m", "--ioengine=psync", "--direct=1")


@on_mount(limit=160)
def mixed_by_several_jobs(d):
    fio(d, "--rw=randrw", "--bs=8k", "--numjobs=3", "--ioengine=psync", "--end_fsync=1")


@on_mount(limit=160)
def unaligned_blocks(d):
    fio(d, "--rw=randwrite", "--bs=3552", "--ioengine=psync", "--fdatasync=32")
