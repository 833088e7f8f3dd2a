//! A barrier that only the rare side pays for.
//!
//! Two threads that each say something and then look at what the other says need a full barrier in between,
//! *both* of them, or both may miss the other. Where one of them does it for every message, that would cost
//! more than the message. So the frequent side only holds back the compiler ([`light`]), and the rare side
//! has the kernel run a barrier on every CPU that runs a registered process (membarrier(2), [`heavy`]): after
//! it, whatever the frequent side did before is seen here, and whatever it does later sees what was done
//! here.
//!
//! So the rare side's cost grows with the CPUs that run registered processes at that moment, whatever those
//! have to do with it: each is interrupted. One such CPU adds some three microseconds here.
//!
//! That holds for processes that are registered ([`is_registered`]). One that is not makes a real barrier
//! itself. A rare side that cannot have the kernel's help (Linux before 4.16, a sandbox) is told so.

use crate::atomic::{AtomicU32, Ordering, compiler_fence, fence};
use crate::thread;

const QUERY: libc::c_int = 0;
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

const UNKNOWN: u32 = 0;
const YES: u32 = 1;
const NO: u32 = 2;

/// Whether this process is registered for both kinds.
static REGISTERED: AtomicU32 = AtomicU32::new(UNKNOWN);
/// What [`thread::forks`] said then: a forked child is not relied upon to be registered.
static FORKS: AtomicU32 = AtomicU32::new(0);

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) >= 0 }
}

/// Whether the kernel makes barriers for this process. Asked once.
#[inline(always)]
pub fn is_registered() -> bool {
    match REGISTERED.load(Ordering::Relaxed) {
        YES => FORKS.load(Ordering::Relaxed) == thread::forks() || register(),
        NO => false,
        _ => register(),
    }
}

#[cold]
fn register() -> bool {
    // SAFETY: takes numbers only.
    let known = unsafe { libc::syscall(libc::SYS_membarrier, QUERY, 0, 0) };
    let needed = (GLOBAL_EXPEDITED | PRIVATE_EXPEDITED) as libc::c_long;
    let registered = known >= 0
        && known & needed == needed
        && membarrier(REGISTER_GLOBAL_EXPEDITED)
        && membarrier(REGISTER_PRIVATE_EXPEDITED);
    FORKS.store(thread::forks(), Ordering::Relaxed);
    REGISTERED.store(if registered { YES } else { NO }, Ordering::Relaxed);
    registered
}

/// For tests: as if the kernel had no such barriers, or as it is.
#[doc(hidden)]
pub fn without_membarrier(without: bool) {
    REGISTERED.store(if without { NO } else { UNKNOWN }, Ordering::SeqCst);
}

/// The frequent side's half: a real barrier where the process is not registered.
#[inline(always)]
pub fn light() {
    if is_registered() {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The frequent side's half, of threads of one process that all are registered.
#[inline(always)]
pub fn light_here() {
    compiler_fence(Ordering::SeqCst);
}

/// The rare side's half, against processes. `false` if the frequent side has to be looked at again and again.
pub fn heavy() -> bool {
    fence(Ordering::SeqCst);
    is_registered() && membarrier(GLOBAL_EXPEDITED)
}

/// The rare side's half, against the threads of this process, all of which use [`light_here`].
pub fn heavy_here() {
    fence(Ordering::SeqCst);
    if is_registered() {
        membarrier(PRIVATE_EXPEDITED);
    }
}
