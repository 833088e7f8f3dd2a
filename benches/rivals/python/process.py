"""Starting a process that runs a function, and waiting for its end and its result."""

import multiprocessing
import sys

from together import each, main


def square(number, results):
    results.put(number * number)


def start(method):
    def run(count):
        context = multiprocessing.get_context(method)
        results = context.SimpleQueue()

        def once():
            process = context.Process(target=square, args=(12, results))
            process.start()
            assert results.get() == 144
            process.join()
            assert process.exitcode == 0

        # The first one may start a server.
        once()
        return each(count, once)

    return run


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main({method: start(method) for method in ("fork", "spawn", "forkserver")})
