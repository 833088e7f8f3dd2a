"""Processes that get ready, start together, and report their times: what the other scripts are made of.

A script is called with a subject and its numbers, and prints the nanoseconds of one operation after it has checked its
result; below them the CPUs that its processes were pinned to, and what else was noted, such as the times of single trips if
POLYPROC_EACH is set. What fails or hangs ends with an error.
"""

import multiprocessing
import os
import signal
import sys
import time

# The benches of the other side fork, too.
CONTEXT = multiprocessing.get_context("fork")
CPUS = sorted(os.sched_getaffinity(0))
# Seconds after which a process is killed.
LONGEST = 60
# Whether single trips are to be timed.
EACH = "POLYPROC_EACH" in os.environ
# Lines to print below the figure, and where everybody was pinned.
NOTES = []
PINS = set()


def pin_to(index):
    os.sched_setaffinity(0, {CPUS[index % len(CPUS)]})


def own_pin():
    cpus = os.sched_getaffinity(0)
    return str(*cpus) if len(cpus) == 1 < len(CPUS) else "-"


def work(index, prepare, barrier, times):
    signal.alarm(LONGEST)
    run = prepare(index)
    barrier.wait()
    begun = time.monotonic_ns()
    figure = run()
    times.put((begun, time.monotonic_ns(), figure, own_pin()))


def together(count, prepare):
    """Runs what `prepare(index)` returns in so many processes: nanoseconds of all, and what they returned by index."""
    barrier = CONTEXT.Barrier(count)
    times = [CONTEXT.SimpleQueue() for _ in range(count)]
    workers = [CONTEXT.Process(target=work, args=(i, prepare, barrier, times[i])) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers), "a process failed"
    all_times = [each.get() for each in times]
    begun = min(begun for begun, _, _, _ in all_times)
    ended = max(ended for _, ended, _, _ in all_times)
    PINS.update(pin for _, _, _, pin in all_times)
    return ended - begun, [figure for _, _, figure, _ in all_times]


def each(count, f):
    """Nanoseconds of one of so many repetitions."""
    start = time.monotonic_ns()
    for _ in range(count):
        f()
    return (time.monotonic_ns() - start) / count


def main(subjects):
    signal.alarm(LONGEST)
    subject, *numbers = sys.argv[1:]
    print(subjects[subject](*map(int, numbers)))
    print("pinned", *(PINS or {own_pin()}))
    print(*NOTES, sep="\n", flush=True)
