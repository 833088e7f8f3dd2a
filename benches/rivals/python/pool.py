"""Pools of two workers, and how long it takes to make one of four and to close it."""

import time

from together import CONTEXT, each, main

WORKERS = 2
LARGE = 1 << 20


def square(number):
    return number * number


def doze(_):
    time.sleep(0.001)
    return 1


def add(data):
    table = bytes((byte + 1) % 256 for byte in range(256))
    return data.translate(table)


def pooled(f):
    def run(*numbers):
        with CONTEXT.Pool(WORKERS) as pool:
            # The workers are there.
            assert pool.map(square, range(8)) == [number * number for number in range(8)]
            result = f(pool, *numbers)
            pool.close()
            pool.join()
        return result

    return run


def map_squares(pool, count, chunk):
    numbers = range(count)
    start = time.monotonic_ns()
    results = pool.map(square, numbers, chunk or None)
    total = time.monotonic_ns() - start
    assert results == [number * number for number in numbers]
    return total / count


def apply(pool, count):
    def once():
        assert pool.apply(square, (12,)) == 144

    return each(count, once)


def doze_all(pool, count):
    start = time.monotonic_ns()
    done = sum(pool.imap_unordered(doze, range(count)))
    total = time.monotonic_ns() - start
    assert done == count
    return total / count


def large(pool, count, are_kept):
    kept = []
    start = time.monotonic_ns()
    payloads = (bytes([number % 256]) * LARGE for number in range(count))
    for number, result in enumerate(pool.imap(add, payloads)):
        expected = (number + 1) % 256
        assert (len(result), result[0], result[-1]) == (LARGE, expected, expected)
        if are_kept:
            kept.append(result)
    return (time.monotonic_ns() - start) / count


def make(count):
    def once():
        with CONTEXT.Pool(4) as pool:
            assert pool.apply(square, (3,)) == 9
            pool.close()
            pool.join()

    return each(count, once)


main(
    {
        "map": pooled(map_squares),
        "apply": pooled(apply),
        "doze": pooled(doze_all),
        "large": pooled(large),
        "make": make,
    }
)
