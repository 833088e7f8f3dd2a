"""Messages one way, from many to many, and there and back; a token by two events.

Messages are `bytes`; a message has its number at its beginning and at its end.
"""

import time

from together import CONTEXT, EACH, NOTES, main, pin_to, together


def message(size, number):
    end = number.to_bytes(8, "little")
    return end if size == 8 else end + bytes(size - 16) + end


def number_of(size, data):
    assert len(data) == size and data[:8] == data[-8:], "a torn message"
    return int.from_bytes(data[:8], "little")


class Queue:
    def __init__(self, _size):
        self.queue = CONTEXT.Queue(1024)
        self.put = self.queue.put
        self.get = self.queue.get


class SimpleQueue:
    def __init__(self, _size):
        self.queue = CONTEXT.SimpleQueue()
        self.put = self.queue.put
        self.get = self.queue.get


class Pipe:
    def __init__(self, _size):
        self.reader, self.writer = CONTEXT.Pipe(duplex=False)
        self.put = self.writer.send_bytes
        self.get = self.reader.recv_bytes


class FasterFifo:
    """With a buffer as large as the others'. A single consumer takes many messages at a time, as its documentation says."""

    most = 100

    def __init__(self, size):
        import faster_fifo

        self.queue = faster_fifo.Queue(max(1 << 20, 5 * size))
        self.got = []

    def put(self, data):
        self.queue.put(data, timeout=60)

    def get(self):
        if not self.got:
            self.got = self.queue.get_many(timeout=60, max_messages_to_get=self.most)[::-1]
        return self.got.pop()


def one_way(make, size, count):
    queue = make(size)

    def prepare(index):
        pin_to(index)

        def put(count):
            body = bytearray(message(size, 0))
            for number in range(count):
                body[:8] = body[-8:] = number.to_bytes(8, "little")
                queue.put(bytes(body))

        def get(count):
            for number in range(count):
                assert number_of(size, queue.get()) == number, "not the message that was due"

        run = get if index else put
        run(max(count // 10, 8))
        return lambda: run(count)

    time, _ = together(2, prepare)
    return time / count


def many(make, size, count, pairs):
    queue = make(size)
    each = max(count // pairs, 1)

    def prepare(index):
        def run(first):
            total = 0
            for number in range(first, first + each):
                if index < pairs:
                    queue.put(message(size, number))
                else:
                    number = number_of(size, queue.get())
                total += number * number + number
            return total

        return lambda: run(index * each)

    time, sums = together(2 * pairs, prepare)
    assert sum(sums[:pairs]) == sum(sums[pairs:]), "what was got is not what was put"
    return time / (each * pairs)


class FasterFifoOfMany(FasterFifo):
    """One at a time: who took more than its part would leave another without."""

    most = 1


def channel(make):
    def run(size, count, pairs):
        return one_way(make, size, count) if pairs == 1 else many(make, size, count, pairs)

    return run


def be_busy(nanos):
    end = time.monotonic_ns() + nanos
    while time.monotonic_ns() < end:
        pass


def trips(there, back):
    """If each trip is timed, the pause is a busy one, and is no part of its time."""

    def run(count, cpu, pause):
        times = CONTEXT.RawArray("Q", count)

        def prepare(index):
            pin_to(cpu if index else 0)

            def trips(count):
                for number in range(count):
                    if index:
                        there.get_checked(number)
                        if pause:
                            time.sleep(pause / 1e6)
                        back.put_number(number)
                    else:
                        there.put_number(number)
                        back.get_checked(number)

            def each(count):
                for number in range(count):
                    start = time.monotonic_ns()
                    if index:
                        there.get_checked(number)
                        be_busy(pause * 1000)
                        back.put_number(number)
                    else:
                        there.put_number(number)
                        back.get_checked(number)
                        times[number] = max(time.monotonic_ns() - start - pause * 1000, 1)

            trips(max(count // 10, 8))
            return lambda: each(count) if EACH else trips(count)

        total, _ = together(2, prepare)
        if EACH:
            NOTES.extend(times)
        return total / count

    return run


class Numbers:
    """A channel of numbers."""

    def __init__(self, make):
        self.queue = make(8)

    def put_number(self, number):
        self.queue.put(message(8, number))

    def get_checked(self, number):
        assert number_of(8, self.queue.get()) == number, "not the message that was due"


class Token:
    """An event, and beside it the number that it tells of."""

    def __init__(self):
        self.event = CONTEXT.Event()
        self.number = CONTEXT.RawValue("Q", 0)

    def put_number(self, number):
        self.number.value = number
        self.event.set()

    def get_checked(self, number):
        self.event.wait()
        self.event.clear()
        assert self.number.value == number, "a wait ended too early"


def trip(make):
    return lambda *numbers: trips(make(), make())(*numbers)


main(
    {
        "queue": channel(Queue),
        "simple_queue": channel(SimpleQueue),
        "pipe": channel(Pipe),
        "faster_fifo": channel(FasterFifo),
        "faster_fifo_many": channel(FasterFifoOfMany),
        "pipe_trip": trip(lambda: Numbers(Pipe)),
        "simple_queue_trip": trip(lambda: Numbers(SimpleQueue)),
        "event_trip": trip(Token),
    }
)
