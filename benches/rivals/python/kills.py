"""A queue whose producer (0) or consumer (1) is killed after some microseconds and replaced: 1 if further messages pass."""

import os
import signal
import time

from together import CONTEXT, LONGEST, main

# More messages than a queue holds, and how many seconds they may take.
FURTHER = 2_000
WITHIN = 1.0
SLOTS = 1024


def queue():
    return CONTEXT.Queue(SLOTS)


def simple_queue():
    return CONTEXT.SimpleQueue()


def faster_fifo():
    import faster_fifo

    queue = faster_fifo.Queue(SLOTS * 64)
    queue.put_now, queue.get_now = queue.put, queue.get
    queue.put = lambda data: queue.put_now(data, timeout=LONGEST)
    queue.get = lambda: queue.get_now(timeout=LONGEST)
    return queue


def produce(queue):
    signal.alarm(LONGEST)
    while True:
        queue.put(bytes(64))


def consume(queue, passed):
    signal.alarm(LONGEST)
    while True:
        assert len(queue.get()) == 64
        passed.value += 1


def kill(make):
    def run(victim, after):
        queue = make()
        passed = CONTEXT.RawValue("Q", 0)

        def start(index):
            target, arguments = [(produce, (queue,)), (consume, (queue, passed))][index]
            worker = CONTEXT.Process(target=target, args=arguments)
            worker.start()
            return worker

        def has_passed(count, within):
            deadline = time.monotonic() + within
            while passed.value < count:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.001)
            return True

        workers = [start(0), start(1)]
        assert has_passed(FURTHER, 10), "nothing passes, though nobody is dead"
        time.sleep(after / 1e6)
        os.kill(workers[victim].pid, signal.SIGKILL)
        workers[victim].join()
        before = passed.value
        workers[victim] = start(victim)
        result = has_passed(before + FURTHER, WITHIN)
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        return int(result)

    return run


main({"queue": kill(queue), "simple_queue": kill(simple_queue), "faster_fifo": kill(faster_fifo)})
# Nobody waits for a queue's thread.
os._exit(0)
