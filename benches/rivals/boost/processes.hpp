// Forked processes that get ready, start together, and report their times through shared memory.

#pragma once

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <set>
#include <type_traits>
#include <utility>

// Ends the process if something is not as it should be.
inline void check(bool is_good, const char* what) {
    if (!is_good) {
        std::fprintf(stderr, "Boost: %s\n", what);
        std::_Exit(1);
    }
}

// The monotonic clock, which is the same for all processes.
inline std::uint64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return std::uint64_t(time.tv_sec) * 1000000000u + std::uint64_t(time.tv_nsec);
}

// The CPU that the process is pinned to, or none.
constexpr std::uint64_t anywhere = 1000000;

inline std::uint64_t own_pin() {
    cpu_set_t own;
    check(sched_getaffinity(0, sizeof own, &own) == 0, "sched_getaffinity");
    if (CPU_COUNT(&own) > 1) return anywhere;
    std::uint64_t cpu = 0;
    while (!CPU_ISSET(cpu, &own)) ++cpu;
    return cpu;
}

// Where those who took part were pinned, to be printed below the figure.
inline std::set<std::uint64_t> pins;

inline void print_pins() {
    if (pins.empty()) pins.insert(own_pin());
    std::printf("pinned");
    for (const std::uint64_t cpu : pins) {
        if (cpu == anywhere) {
            std::printf(" -");
        } else {
            std::printf(" %lu", static_cast<unsigned long>(cpu));
        }
    }
    std::printf("\n");
}

// Pins the process to one of its CPUs; it is not pinned yet.
inline void pin_to(std::uint64_t index) {
    cpu_set_t all;
    check(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    std::uint64_t left = index % CPU_COUNT(&all);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &all) || left-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        check(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
        return;
    }
}

// A value that processes forked later share.
template <class T, class... Arguments>
T* shared(Arguments&&... arguments) {
    void* at = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED, "mmap");
    if constexpr (std::is_array_v<T>) {
        return static_cast<T*>(at);
    } else {
        return new (at) T(std::forward<Arguments>(arguments)...);
    }
}

// So many numbers, all nought, that processes forked later share.
inline std::uint64_t* shared_numbers(std::uint64_t count) {
    void* at = mmap(nullptr, count * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED, "mmap");
    return static_cast<std::uint64_t*>(at);
}

// Nanoseconds of one of so many repetitions.
template <class F>
double each(std::uint64_t count, F f) {
    const std::uint64_t start = now();
    for (std::uint64_t i = 0; i < count; ++i) f();
    return double(now() - start) / double(count);
}

// Runs what `prepare(index)` returns in so many processes: the nanoseconds from the first that began to the last that ended.
template <class F>
std::uint64_t together(std::uint64_t count, F prepare) {
    constexpr std::uint64_t most = 64;
    // A hang ends the program, and each of its processes.
    constexpr unsigned longest = 60;
    struct Times {
        std::atomic<std::uint64_t> ready, begun[most], ended[most], pinned[most];
    };
    check(count <= most, "too many processes");
    Times& times = *shared<Times>();
    pid_t pids[most];
    alarm(longest);
    for (std::uint64_t index = 0; index < count; ++index) {
        pids[index] = fork();
        check(pids[index] >= 0, "fork");
        if (pids[index] > 0) continue;
        alarm(longest);
        auto run = prepare(index);
        ++times.ready;
        while (times.ready < count) sched_yield();
        times.begun[index] = now();
        run();
        times.ended[index] = now();
        times.pinned[index] = own_pin();
        std::_Exit(0);
    }
    bool is_good = true;
    for (std::uint64_t index = 0; index < count; ++index) {
        int status = 0;
        is_good = waitpid(pids[index], &status, 0) == pids[index] && status == 0 && is_good;
    }
    check(is_good, "a process failed");
    for (std::uint64_t index = 0; index < count; ++index) pins.insert(times.pinned[index]);
    std::uint64_t begun = times.begun[0], ended = times.ended[0];
    for (std::uint64_t index = 1; index < count; ++index) {
        if (times.begun[index] < begun) begun = times.begun[index];
        if (times.ended[index] > ended) ended = times.ended[index];
    }
    return ended - begun;
}
