"""Locks and semaphores, alone and by several."""

from together import CONTEXT, each, main, pin_to, together


def increment_under_lock(lock, number):
    def increment():
        with lock:
            number.value += 1

    return increment


def increment_value(value):
    def increment():
        with value.get_lock():
            value.value += 1

    return increment


def alone(make):
    def run(count):
        pin_to(1)
        increment, number = make()
        time = each(count, increment)
        assert number.value == count, "increments were lost"
        return time

    return run


def counter(make):
    def run(among, count):
        increment, number = make()

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


def lock():
    number = CONTEXT.RawValue("Q", 0)
    return increment_under_lock(CONTEXT.Lock(), number), number


def value():
    number = CONTEXT.Value("Q", 0)
    return increment_value(number), number


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
        "semaphore_alone": semaphore_alone,
        "semaphore": semaphore,
    }
)
