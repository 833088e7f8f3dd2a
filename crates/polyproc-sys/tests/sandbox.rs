//! In a sandbox that forbids futex_waitv(2). A test binary of its own: who finds it forbidden remembers it for the process.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, Wait, wait_any};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(30);

/// A list of allowed calls that is older than futex_waitv answers with EPERM, not with ENOSYS.
#[test]
fn any_word_ends_a_wait_where_a_sandbox_forbids_to_wait_for_several() {
    let words = [Futex::new(0), Futex::new(0)];
    let waiters = [(&words[0], 0), (&words[1], 0)];
    for word in &words {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                forbid_waitv();
                let start = Instant::now();
                assert_eq!(wait_any(&waiters, Deadline::after(TICK)), Wait::TimedOut);
                assert!(start.elapsed() >= TICK);
                wait_any(&waiters, Deadline::NEVER)
            });
            std::thread::sleep(2 * TICK);
            assert!(!sleeper.is_finished());
            word.store(1, Ordering::SeqCst);
            word.wake_all();
            assert!(matches!(sleeper.join().unwrap(), Wait::Woken | Wait::Changed));
        });
        word.store(0, Ordering::SeqCst);
    }
}

/// From here on, futex_waitv(2) fails in this thread.
fn forbid_waitv() {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let answer = |k: u32| instruction(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // `struct seccomp_data` begins with the number of the call.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_futex_waitv as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable, and so is its filter.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}
