"""Locks and semaphores, alone and by several, at once or after some work under the lock; and who gets a lock how often."""

import time

from together import CONTEXT, NOTES, each, main, pin_to, together


def work(turns):
    for _ in range(turns):
        pass


def turns_of(nanos):
    """Turns of work that take so many nanoseconds, as the fastest of some tries says."""
    many = 100_000
    return nanos * many // int(min(each(1, lambda: work(many)) for _ in range(5))) if nanos else 0


def increment_under_lock(lock, number, turns=0):
    def increment():
        with lock:
            number.value += 1

    def work_and_add():
        with lock:
            work(turns)
            number.value += 1

    return work_and_add if turns else increment


def increment_value(value, turns=0):
    def increment():
        with value.get_lock():
            value.value += 1

    def work_and_add():
        with value.get_lock():
            work(turns)
            value.value += 1

    return work_and_add if turns else increment


def alone(make):
    def run(count):
        pin_to(1)
        increment, number = make()
        time = each(count, increment)
        assert number.value == count, "increments were lost"
        return time

    return run


def counter(make):
    def run(among, count, nanos=0):
        increment, number = make(turns_of(nanos))

        def prepare(index):
            if among == 2:
                pin_to(index)

            def run():
                for _ in range(count):
                    increment()

            return run

        time, _ = together(among, prepare)
        assert number.value == among * count, "increments were lost"
        return time / (among * count)

    return run


def lock(turns=0):
    number = CONTEXT.RawValue("Q", 0)
    return increment_under_lock(CONTEXT.Lock(), number, turns), number


def value(turns=0):
    number = CONTEXT.Value("Q", 0)
    return increment_value(number, turns), number


def fairness(among, micros):
    """Notes how many turns each has had, and its longest wait."""
    increment, number = lock()

    def prepare(index):
        def run():
            before = time.monotonic_ns()
            end = before + micros * 1000
            count = longest = 0
            while before < end:
                increment()
                after = time.monotonic_ns()
                longest = max(longest, after - before)
                count += 1
                before = after
            return count, longest

        return run

    time_of_all, seen = together(among, prepare)
    total = sum(count for count, _ in seen)
    assert number.value == total, "increments were lost"
    NOTES.extend(f"{count} {longest}" for count, longest in seen)
    return time_of_all / total


def semaphore_alone(count):
    pin_to(1)
    semaphore = CONTEXT.Semaphore(3)

    def turn():
        semaphore.acquire()
        semaphore.release()

    time = each(count, turn)
    assert semaphore.get_value() == 3, "a permit was lost"
    return time


def semaphore(count):
    crowd = 4
    semaphore = CONTEXT.Semaphore(2)

    def prepare(index):
        pin_to(index)

        def run():
            for _ in range(count):
                semaphore.acquire()
                semaphore.release()

        return run

    time, _ = together(crowd, prepare)
    assert semaphore.get_value() == 2, "a permit was lost"
    return time / (crowd * count)


main(
    {
        "lock_alone": alone(lock),
        "value_alone": alone(value),
        "lock": counter(lock),
        "value": counter(value),
        "fairness": fairness,
        "semaphore_alone": semaphore_alone,
        "semaphore": semaphore,
    }
)
