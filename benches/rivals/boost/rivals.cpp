// Boost.Interprocess, measured as the Rust side measures the others: `rivals SUBJECT NUMBER...` prints the nanoseconds of one
// operation, after it has checked its result; below them the CPUs that its processes were pinned to, and what else was noted, such
// as the times of single trips if POLYPROC_EACH is set. What fails or hangs ends with an error.

#include "processes.hpp"

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_semaphore.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>
#include <boost/version.hpp>

#include <signal.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace ipc = boost::interprocess;
using u64 = std::uint64_t;

namespace {

struct Counter {
    ipc::interprocess_mutex mutex;
    u64 number = 0;

    void increment(u64 turns = 0) {
        mutex.lock();
        if (turns > 0) busy(turns);
        ++number;
        mutex.unlock();
    }

    // As the Rust side does, but not as fast: compilers put turns together, each its own way.
    static void busy(u64 turns) {
        u64 number = 1;
        asm volatile("" : "+r"(number));
        for (u64 i = 0; i < turns; ++i) number = number * 6364136223846793005u + 1;
        asm volatile("" : "+r"(number));
    }
};

// Turns of work that take so many nanoseconds, as the fastest of some tries says.
u64 turns_of(u64 nanos) {
    constexpr u64 many = 1000000;
    double fastest = 1e300;
    for (int i = 0; i < 7; ++i) {
        const double time = each(1, [] { Counter::busy(many); });
        if (time < fastest) fastest = time;
    }
    return u64(double(nanos) * double(many) / fastest);
}

// Lines to print below the figure.
std::vector<std::string> notes;

double lock_alone(u64 count) {
    pin_to(1);
    Counter& counter = *shared<Counter>();
    const double time = each(count, [&] { counter.increment(); });
    check(counter.number == count, "increments were lost");
    return time;
}

double counter(u64 among, u64 each, u64 nanos) {
    const u64 turns = nanos > 0 ? turns_of(nanos) : 0;
    Counter& counter = *shared<Counter>();
    const u64 total = together(among, [&](u64 index) {
        if (among == 2) pin_to(index);
        return [&] {
            for (u64 i = 0; i < each; ++i) counter.increment(turns);
        };
    });
    check(counter.number == among * each, "increments were lost");
    return double(total) / double(among * each);
}

// Notes how many turns each has had in so many microseconds, and its longest wait.
double fairness(u64 among, u64 micros) {
    Counter& counter = *shared<Counter>();
    u64* seen = shared_numbers(2 * among);
    const u64 total = together(among, [&](u64 index) {
        return [&, index] {
            u64 before = now();
            const u64 end = before + micros * 1000;
            u64 count = 0, longest = 0;
            while (before < end) {
                counter.increment();
                const u64 after = now();
                if (after - before > longest) longest = after - before;
                ++count;
                before = after;
            }
            seen[2 * index] = count;
            seen[2 * index + 1] = longest;
        };
    });
    u64 turns = 0;
    for (u64 index = 0; index < among; ++index) {
        turns += seen[2 * index];
        notes.push_back(std::to_string(seen[2 * index]) + " " + std::to_string(seen[2 * index + 1]));
    }
    check(counter.number == turns, "increments were lost");
    return double(total) / double(turns);
}

// Two numbers that are always equal.
struct Pair {
    ipc::interprocess_sharable_mutex mutex;
    u64 numbers[2] = {0, 0};

    void read() {
        mutex.lock_sharable();
        const u64 one = numbers[0], other = numbers[1];
        mutex.unlock_sharable();
        check(one == other, "a reader saw a writer at work");
    }

    void write() {
        mutex.lock();
        for (u64& number : numbers) ++number;
        mutex.unlock();
    }
};

double rwlock_alone(u64 count, bool writes) {
    pin_to(1);
    Pair& pair = *shared<Pair>();
    const double time = each(count, [&] {
        if (writes) {
            pair.write();
        } else {
            pair.read();
        }
    });
    check(pair.numbers[0] == (writes ? count : 0) && pair.numbers[1] == pair.numbers[0], "writes were lost");
    return time;
}

// Four processes, every so many turns of which are writes.
double rwlock(u64 each, u64 every) {
    constexpr u64 crowd = 4;
    Pair& pair = *shared<Pair>();
    const auto is_write = [every](u64 turn, u64 index) { return every != 0 && (turn + index) % every == 0; };
    const u64 total = together(crowd, [&](u64 index) {
        return [&, index] {
            for (u64 turn = 0; turn < each; ++turn) {
                if (is_write(turn, index)) {
                    pair.write();
                } else {
                    pair.read();
                }
            }
        };
    });
    u64 writes = 0;
    for (u64 index = 0; index < crowd; ++index) {
        for (u64 turn = 0; turn < each; ++turn) writes += is_write(turn, index);
    }
    check(pair.numbers[0] == writes && pair.numbers[1] == writes, "writes were lost");
    return double(total) / double(each * crowd);
}

double semaphore_alone(u64 count) {
    pin_to(1);
    auto& semaphore = *shared<ipc::interprocess_semaphore>(3u);
    const double time = each(count, [&] {
        semaphore.wait();
        semaphore.post();
    });
    for (int i = 0; i < 3; ++i) check(semaphore.try_wait(), "a permit was lost");
    check(!semaphore.try_wait(), "there is a permit too many");
    return time;
}

void work() {
    for (volatile int turn = 0; turn < 100; turn = turn + 1) {
    }
}

double semaphore(u64 count) {
    constexpr u64 crowd = 4;
    auto& semaphore = *shared<ipc::interprocess_semaphore>(2u);
    const u64 total = together(crowd, [&](u64 index) {
        pin_to(index);
        return [&] {
            for (u64 i = 0; i < count; ++i) {
                semaphore.wait();
                work();
                semaphore.post();
                work();
            }
        };
    });
    for (int i = 0; i < 2; ++i) check(semaphore.try_wait(), "a permit was lost");
    check(!semaphore.try_wait(), "there is a permit too many");
    return double(total) / double(count * crowd);
}

// A queue of messages of a size, whose name is gone as soon as it is open.
struct Queue {
    static std::string name() {
        static int next = 0;
        return "polyproc-rivals-" + std::to_string(getpid()) + "-" + std::to_string(next++);
    }

    explicit Queue(u64 size, u64 slots, const std::string& name = Queue::name())
        : size(size), queue(ipc::create_only, name.c_str(), slots, size) {
        ipc::message_queue::remove(name.c_str());
    }

    void put(std::vector<char>& message, u64 number) {
        std::memcpy(message.data() + size - 8, &number, 8);
        std::memcpy(message.data(), &number, 8);
        queue.send(message.data(), size, 0);
    }

    u64 get(std::vector<char>& message) {
        ipc::message_queue::size_type length = 0;
        unsigned priority = 0;
        queue.receive(message.data(), size, length, priority);
        u64 number = 0, end = 0;
        std::memcpy(&number, message.data(), 8);
        std::memcpy(&end, message.data() + size - 8, 8);
        check(length == size && number == end, "a torn message");
        return number;
    }

    u64 size;
    ipc::message_queue queue;
};

u64 warm(u64 count) { return count / 10 > 8 ? count / 10 : 8; }

double one_way(u64 size, u64 count, u64 slots) {
    Queue queue(size, slots);
    const u64 total = together(2, [&](u64 index) {
        pin_to(index);
        auto message = std::make_shared<std::vector<char>>(size);
        auto pass = [&queue, message, index](u64 count) {
            for (u64 number = 0; number < count; ++number) {
                if (index == 0) {
                    queue.put(*message, number);
                } else {
                    check(queue.get(*message) == number, "not the message that was due");
                }
            }
        };
        pass(warm(count));
        return [pass, count] { pass(count); };
    });
    return double(total) / double(count);
}

double many(u64 pairs, u64 count, u64 slots) {
    constexpr u64 size = 64;
    Queue queue(size, slots);
    const u64 each = count / pairs > 0 ? count / pairs : 1;
    // The sums of the squares of what was put and of what was got.
    auto* sums = shared<std::atomic<u64>[2]>();
    const u64 total = together(2 * pairs, [&](u64 index) {
        auto message = std::make_shared<std::vector<char>>(size);
        auto mix = [&queue, message, index, pairs, sums](u64 first, u64 count) {
            u64 sum = 0;
            for (u64 i = first; i < first + count; ++i) {
                u64 number = i;
                if (index < pairs) {
                    queue.put(*message, number);
                } else {
                    number = queue.get(*message);
                }
                sum += number * number + number;
            }
            (*sums)[index < pairs ? 0 : 1] += sum;
        };
        mix(0, warm(each));
        return [mix, index, each] { mix(index * each, each); };
    });
    check((*sums)[0] == (*sums)[1], "what was got is not what was put");
    return double(total) / double(each * pairs);
}

// If each trip is timed, the pause is a busy one, and is no part of its time.
double round_trip(u64 count, u64 cpu, u64 pause) {
    Queue there(8, 64), back(8, 64);
    const bool is_each = std::getenv("POLYPROC_EACH") != nullptr;
    u64* times = shared_numbers(count);
    const u64 total = together(2, [&](u64 index) {
        pin_to(index == 0 ? 0 : cpu);
        auto message = std::make_shared<std::vector<char>>(8);
        auto trips = [&, message, index, pause](u64 count) {
            for (u64 number = 0; number < count; ++number) {
                const u64 start = is_each ? now() : 0;
                if (index == 0) there.put(*message, number);
                check((index == 0 ? back : there).get(*message) == number, "not the message that was due");
                if (index == 1) {
                    if (pause > 0 && !is_each) usleep(pause);
                    if (pause > 0 && is_each) {
                        for (const u64 taken = now(); now() - taken < pause * 1000;) {
                        }
                    }
                    back.put(*message, number);
                } else if (is_each) {
                    const u64 time = now() - start;
                    times[number] = time > pause * 1000 ? time - pause * 1000 : 1;
                }
            }
        };
        trips(warm(count) < count ? warm(count) : count);
        return [trips, count] { trips(count); };
    });
    for (u64 number = 0; is_each && number < count; ++number) notes.push_back(std::to_string(times[number]));
    return double(total) / double(count);
}

// A producer (0) or a consumer (1) is killed after some microseconds and replaced: 1 if further messages pass.
double kill_one(u64 victim, u64 after) {
    constexpr u64 size = 64, slots = 1024, further = 2000;
    Queue queue(size, slots);
    auto& passed = *shared<std::atomic<u64>>(0u);
    const auto start = [&](u64 index) {
        const pid_t pid = fork();
        check(pid >= 0, "fork");
        if (pid > 0) return pid;
        alarm(60);
        std::vector<char> message(size);
        for (;;) {
            if (index == 0) {
                queue.put(message, 7);
            } else {
                check(queue.get(message) == 7, "not the message that was due");
                ++passed;
            }
        }
    };
    const auto has_passed = [&](u64 count, u64 within) {
        const u64 deadline = now() + within * 1000000000u;
        while (passed < count) {
            if (now() > deadline) return false;
            usleep(200);
        }
        return true;
    };
    const auto end = [](pid_t pid) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    };
    pid_t pids[2] = {start(0), start(1)};
    const bool is_sound = has_passed(further, 10);
    usleep(after);
    end(pids[victim]);
    const u64 before = passed;
    pids[victim] = start(victim);
    const bool is_good = has_passed(before + further, 1);
    end(pids[0]);
    end(pids[1]);
    check(is_sound, "nothing passes, though nobody is dead");
    return is_good;
}

double run(const std::string& subject, const std::vector<u64>& numbers) {
    const auto number = [&](std::size_t index) { return numbers.at(index); };
    if (subject == "lock_alone") return lock_alone(number(0));
    if (subject == "counter") return counter(number(0), number(1), number(2));
    if (subject == "fairness") return fairness(number(0), number(1));
    if (subject == "rwlock_read_alone") return rwlock_alone(number(0), false);
    if (subject == "rwlock_write_alone") return rwlock_alone(number(0), true);
    if (subject == "rwlock") return rwlock(number(0), number(1));
    if (subject == "semaphore_alone") return semaphore_alone(number(0));
    if (subject == "semaphore") return semaphore(number(0));
    if (subject == "one_way") return one_way(number(0), number(1), number(2));
    if (subject == "many") return many(number(0), number(1), number(2));
    if (subject == "round_trip") return round_trip(number(0), number(1), number(2));
    if (subject == "kill") return kill_one(number(0), number(1));
    check(false, "no such subject");
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    check(count > 1, "a subject is missing");
    if (std::string(arguments[1]) == "version") {
        std::string version = BOOST_LIB_VERSION;
        for (char& sign : version) sign = sign == '_' ? '.' : sign;
        std::printf("Boost %s\n", version.c_str());
        return 0;
    }
    std::vector<u64> numbers;
    for (int i = 2; i < count; ++i) numbers.push_back(std::stoull(arguments[i]));
    std::printf("%.3f\n", run(arguments[1], numbers));
    print_pins();
    for (const std::string& note : notes) std::printf("%s\n", note.c_str());
}
