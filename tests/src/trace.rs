//! Stepping through a child, one instruction at a time, with `ptrace`.
//!
//! A step is one instruction outside of the kernel. A system call is one step, if it does not sleep; and so is a call
//! into the vDSO (the clock), because how many instructions that takes differs from run to run and none of them touches
//! shared memory.
//!
//! On aarch64 this needs the atomic instructions of ARMv8.1: with the older pairs of load and store exclusive, a stepped
//! loop would never come to its end.

use crate::child::{Child, Ending, pause};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A system call, and which bits tell that an instruction is one.
#[cfg(target_arch = "x86_64")]
const SYSTEM_CALL: u64 = 0x050f;
#[cfg(target_arch = "x86_64")]
const SYSTEM_CALL_MASK: u64 = 0xffff;
#[cfg(target_arch = "aarch64")]
const SYSTEM_CALL: u64 = 0xd400_0001;
#[cfg(target_arch = "aarch64")]
const SYSTEM_CALL_MASK: u64 = 0xffff_ffff;

/// A breakpoint, and which bits it needs.
#[cfg(target_arch = "x86_64")]
const BREAKPOINT: u64 = 0xcc;
#[cfg(target_arch = "x86_64")]
const BREAKPOINT_MASK: u64 = 0xff;
#[cfg(target_arch = "aarch64")]
const BREAKPOINT: u64 = 0xd420_0000;
#[cfg(target_arch = "aarch64")]
const BREAKPOINT_MASK: u64 = 0xffff_ffff;

/// How a traced child marks the part of itself that is to be stepped through.
#[derive(Debug)]
pub struct Stage {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl Stage {
    fn here() -> Stage {
        // SAFETY: getpid has no arguments and cannot fail.
        let process = unsafe { libc::getpid() };
        // SAFETY: gettid has no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        Stage { process, thread }
    }

    /// From here on.
    pub fn begin(&self) {
        self.stop();
    }

    /// Up to here.
    pub fn end(&self) {
        self.stop();
    }

    /// Stops the thread. Not by `raise`, which has a signal mask to save and restore.
    fn stop(&self) {
        // SAFETY: the call takes plain numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, libc::SIGSTOP) };
    }
}

/// What came of letting a child go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It made a step.
    Stepped,
    /// It sleeps in a system call.
    Asleep,
    /// It has come to a [`begin`](Stage::begin) or an [`end`](Stage::end).
    Marked,
    /// It got this signal.
    Signaled(i32),
    /// It has ended.
    Ended(Ending),
}

/// A child that stops where its tracer wants. All of its methods are for the thread that forked it.
#[derive(Debug)]
pub struct Tracee {
    child: Child,
    /// The address of the instruction that it is at, if it is known.
    position: Option<u64>,
}

impl Tracee {
    /// Forks a child that runs `body` up to its [`begin`](Stage::begin).
    pub fn fork(body: impl FnOnce(&Stage)) -> Tracee {
        let child = Child::fork(|| {
            // SAFETY: the call takes plain numbers.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            body(&Stage::here());
        });
        Tracee { child, position: None }
    }

    /// The child.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Waits until it has come to its first mark.
    ///
    /// # Errors
    ///
    /// What happened instead; `Asleep` if nothing did in this time.
    pub fn go(&mut self, timeout: Duration) -> Result<(), Event> {
        match self.wait(timeout) {
            Some(Event::Marked) => {
                self.set_options();
                Ok(())
            }
            Some(other) => Err(other),
            None => Err(Event::Asleep),
        }
    }

    /// Makes it do one step.
    pub fn step(&mut self) -> Event {
        loop {
            let sleepy = self.is_at_system_call();
            self.resume(libc::PTRACE_SINGLESTEP);
            let event = if sleepy { self.wait_or_sleep() } else { self.wait_long() };
            if event == Event::Stepped && vdso().contains(&self.position()) {
                continue;
            }
            return event;
        }
    }

    /// Lets it run until it is at `position` for the `times`th time from now on, not counting where it is.
    ///
    /// `Stepped` if it came there. Anything else, `Asleep` too, means that it went another way.
    pub fn run_to(&mut self, position: u64, times: u32) -> Event {
        let original = self.peek(position);
        for _ in 0..times {
            // Off the place first, if it is there, so that it can come back.
            match self.step() {
                Event::Stepped if self.position() == position => continue,
                Event::Stepped => {}
                other => return other,
            }
            self.poke(position, (original & !BREAKPOINT_MASK) | BREAKPOINT);
            self.resume(libc::PTRACE_CONT);
            let event = self.wait_or_sleep();
            if event == Event::Asleep {
                return event;
            }
            if !matches!(event, Event::Ended(_)) {
                self.poke(position, original);
            }
            if event != Event::Stepped {
                return event;
            }
            self.undo_breakpoint(position);
        }
        Event::Stepped
    }

    /// Waits for the end of the sleep that the last step ran into. `None` if it does not end in this time.
    pub fn awake(&mut self, timeout: Duration) -> Option<Event> {
        self.wait(timeout)
    }

    /// Counts its system calls from the mark it is at to the next.
    ///
    /// # Errors
    ///
    /// What happened before it came there; `Asleep` if nothing did in this time.
    pub fn count_system_calls(&mut self, timeout: Duration) -> Result<u32, Event> {
        let start = Instant::now();
        let mut stops = 0;
        loop {
            self.resume(libc::PTRACE_SYSCALL);
            match self.wait(timeout.saturating_sub(start.elapsed())) {
                Some(Event::Stepped) => stops += 1,
                // Each call stops twice, and the last is the mark itself.
                Some(Event::Marked) => return Ok(stops / 2 - 1),
                Some(other) => return Err(other),
                None => return Err(Event::Asleep),
            }
        }
    }

    /// Lets it run to its end. `None` if that does not come in this time.
    pub fn finish(&mut self, timeout: Duration) -> Option<Event> {
        self.resume(libc::PTRACE_CONT);
        self.wait(timeout)
    }

    /// Kills it with `SIGKILL` and waits for its end.
    pub fn kill(&mut self) -> Ending {
        self.child.kill()
    }

    /// The address of the instruction that it is at.
    pub fn position(&mut self) -> u64 {
        if let Some(position) = self.position {
            return position;
        }
        let registers = self.registers();
        #[cfg(target_arch = "x86_64")]
        let position = registers.rip;
        #[cfg(target_arch = "aarch64")]
        let position = registers.pc;
        self.position = Some(position);
        position
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all zero is a valid value of this struct of numbers.
        let mut registers: libc::user_regs_struct = unsafe { core::mem::zeroed() };
        self.transfer(libc::PTRACE_GETREGSET, &mut registers);
        registers
    }

    fn transfer(&self, request: libc::c_uint, registers: &mut libc::user_regs_struct) {
        let mut vector = libc::iovec {
            iov_base: core::ptr::from_mut(registers).cast(),
            iov_len: size_of::<libc::user_regs_struct>(),
        };
        // SAFETY: the vector is of the type that these requests take, and describes memory of ours.
        let result = unsafe { libc::ptrace(request, self.child.pid(), libc::NT_PRSTATUS, &raw mut vector) };
        assert_eq!(result, 0, "cannot transfer the registers: {}", io::Error::last_os_error());
    }

    /// Back to where a breakpoint stopped it.
    fn undo_breakpoint(&mut self, position: u64) {
        // On aarch64 it is there already.
        #[cfg(target_arch = "x86_64")]
        {
            let mut registers = self.registers();
            debug_assert_eq!(registers.rip, position + 1);
            registers.rip = position;
            self.transfer(libc::PTRACE_SETREGSET, &mut registers);
        }
        self.position = Some(position);
    }

    /// Whether the next instruction is a system call. All children have the test's own code, so that it is looked at
    /// once only.
    fn is_at_system_call(&mut self) -> bool {
        thread_local! {
            static KNOWN: RefCell<HashMap<u64, bool>> = RefCell::new(HashMap::new());
        }
        let position = self.position();
        KNOWN.with_borrow_mut(|known| {
            *known.entry(position).or_insert_with(|| self.peek(position) & SYSTEM_CALL_MASK == SYSTEM_CALL)
        })
    }

    fn peek(&self, address: u64) -> u64 {
        // SAFETY: the request takes plain numbers; an address that is not mapped there is an error.
        unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.child.pid(), address, 0) as u64 }
    }

    fn poke(&self, address: u64, word: u64) {
        // SAFETY: the request takes plain numbers, and writes to the child's own copy of its code.
        let result = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, self.child.pid(), address, word) };
        assert_eq!(result, 0, "cannot set a breakpoint: {}", io::Error::last_os_error());
    }

    fn set_options(&self) {
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        // SAFETY: the request takes plain numbers.
        let result = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.child.pid(), 0, options) };
        assert_eq!(result, 0, "ptrace: {}", io::Error::last_os_error());
    }

    /// Lets it go on; the signal that stopped it is not delivered.
    fn resume(&mut self, request: libc::c_uint) {
        self.position = None;
        // SAFETY: the request takes plain numbers.
        let result = unsafe { libc::ptrace(request, self.child.pid(), 0, 0) };
        // It may have been killed meanwhile; then the next wait says so.
        debug_assert!(result == 0 || self.is_gone(), "ptrace: {}", io::Error::last_os_error());
    }

    fn is_gone(&self) -> bool {
        matches!(crate::system::state(self.child.pid()), Some('Z') | None)
    }

    /// Waits for what comes, which is not long.
    fn wait_long(&mut self) -> Event {
        loop {
            if let Some(event) = self.look(0) {
                return event;
            }
        }
    }

    fn wait(&mut self, timeout: Duration) -> Option<Event> {
        let start = Instant::now();
        let mut looks = 0;
        loop {
            if let Some(event) = self.look(libc::WNOHANG) {
                return Some(event);
            }
            if start.elapsed() > timeout {
                return None;
            }
            pause(&mut looks);
        }
    }

    /// Waits until it stops or sleeps.
    fn wait_or_sleep(&mut self) -> Event {
        let mut looks = 0;
        loop {
            if let Some(event) = self.look(libc::WNOHANG) {
                return event;
            }
            if looks >= 4 && crate::system::state(self.child.pid()) == Some('S') {
                return Event::Asleep;
            }
            pause(&mut looks);
        }
    }

    fn look(&mut self, flags: i32) -> Option<Event> {
        if let Some(ending) = self.child.ending() {
            return Some(Event::Ended(ending));
        }
        let mut status = 0;
        // SAFETY: the status is writable.
        let result = unsafe { libc::waitpid(self.child.pid() as i32, &mut status, flags | libc::__WALL) };
        if result <= 0 {
            return None;
        }
        if let Some(ending) = Ending::of(status) {
            self.child.ended(ending);
            return Some(Event::Ended(ending));
        }
        Some(match libc::WSTOPSIG(status) {
            libc::SIGSTOP => Event::Marked,
            signal if signal & 0x7f == libc::SIGTRAP => Event::Stepped,
            signal => Event::Signaled(signal),
        })
    }
}

/// The calling thread on one CPU. Dropped, it may use all again that it could before.
#[derive(Debug)]
pub struct Pinned {
    before: libc::cpu_set_t,
}

impl Pinned {
    /// Puts the calling thread and the child on one CPU, where a step is a switch between the two: from one CPU to the
    /// other it would be ten times as long. Where that is not allowed, nothing changes.
    pub fn with(tracee: &Tracee) -> Pinned {
        // SAFETY: all zero is the empty set.
        let mut before: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        // SAFETY: thread 0 is the caller, and the set is writable.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut before) };
        // SAFETY: as above.
        let mut one: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        // SAFETY: sched_getcpu has no arguments.
        let cpu = unsafe { libc::sched_getcpu() };
        // SAFETY: the set has bits for all CPUs there can be, and the number is one's.
        unsafe { libc::CPU_SET(cpu.max(0) as usize, &mut one) };
        for thread in [tracee.child.pid() as i32, 0] {
            // SAFETY: the set is readable.
            unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &one) };
        }
        Pinned { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the set is readable; it is the one that the thread had.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.before) };
    }
}

/// Where the vDSO is, in this process and in those that it forks.
fn vdso() -> &'static Range<u64> {
    static VDSO: OnceLock<Range<u64>> = OnceLock::new();
    VDSO.get_or_init(|| {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc is there");
        let line = maps.lines().find(|line| line.ends_with("[vdso]"));
        let range = line.and_then(|line| line.split(' ').next()?.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        range.map_or(0..0, |(start, end)| number(start)..number(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;
    use polyproc_sys::atomic::{AtomicU64, Ordering};

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn steps_are_instructions_and_a_clock_is_one() {
        let count = |body: &dyn Fn()| {
            let mut tracee = Tracee::fork(|stage| {
                stage.begin();
                body();
                stage.end();
            });
            tracee.go(LONG).unwrap();
            let mut steps = 0;
            loop {
                match tracee.step() {
                    Event::Stepped => steps += 1,
                    Event::Marked => return steps,
                    other => panic!("{other:?}"),
                }
            }
        };
        let cell = Shared::<AtomicU64>::new();
        let nothing = count(&|| {});
        let something = count(&|| {
            for _ in 0..10 {
                cell.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(cell.load(Ordering::Relaxed), 10);
        assert!(something >= nothing + 10, "{something} steps, and {nothing} for nothing");
        assert!(nothing < 200, "{nothing} steps for nothing");
        let clock = || _ = std::hint::black_box(Instant::now());
        clock();
        let (first, second) = (count(&clock), count(&clock));
        assert_eq!(first, second);
    }

    #[test]
    fn running_to_a_place_ends_where_stepping_does() {
        let cell = Shared::<AtomicU64>::new();
        let fork = || {
            let mut tracee = Tracee::fork(|stage| {
                stage.begin();
                for _ in 0..20 {
                    std::hint::black_box(cell.fetch_add(1, Ordering::Relaxed));
                }
                stage.end();
            });
            tracee.go(LONG).unwrap();
            tracee
        };
        let mut stepped = fork();
        let mut positions = vec![stepped.position()];
        let mut values = vec![cell.load(Ordering::Relaxed)];
        while stepped.step() == Event::Stepped {
            positions.push(stepped.position());
            values.push(cell.load(Ordering::Relaxed));
        }
        assert_eq!(values.last(), Some(&20));
        // The last one is behind the call that stops it at its mark, where it does not run any more.
        for target in 1..positions.len() - 1 {
            cell.store(0, Ordering::Relaxed);
            let times =
                positions[1..=target].iter().filter(|position| **position == positions[target]).count();
            let mut running = fork();
            assert_eq!(running.run_to(positions[target], times as u32), Event::Stepped);
            assert_eq!(running.position(), positions[target]);
            assert_eq!(cell.load(Ordering::Relaxed), values[target], "at step {target}");
        }
    }

    #[test]
    fn a_sleep_is_seen_and_ends() {
        let mut tracee = Tracee::fork(|stage| {
            stage.begin();
            std::thread::sleep(Duration::from_millis(50));
            stage.end();
        });
        tracee.go(LONG).unwrap();
        let start = Instant::now();
        let mut sleeps = 0;
        loop {
            match tracee.step() {
                Event::Asleep => {
                    sleeps += 1;
                    assert_eq!(tracee.awake(LONG), Some(Event::Stepped));
                }
                Event::Stepped => {}
                Event::Marked => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sleeps, 1);
        assert!(start.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn system_calls_are_counted() {
        let mut tracee = Tracee::fork(|stage| {
            stage.begin();
            for _ in 0..3 {
                std::thread::yield_now();
            }
            stage.end();
        });
        tracee.go(LONG).unwrap();
        assert_eq!(tracee.count_system_calls(LONG), Ok(3));
        assert_eq!(tracee.finish(LONG), Some(Event::Ended(Ending::Exited(0))));
    }
}
