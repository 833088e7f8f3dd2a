//! The beginning of a program that can start itself again.

use crate::child::{self, Origin};
use crate::{family, image, raw};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::membarrier;

/// Whether `init` has been called: 0 or 1.
static DONE: AtomicU32 = AtomicU32::new(0);

pub(crate) fn is_done() -> bool {
    // Relaxed: whoever called `init` knows.
    DONE.load(Ordering::Relaxed) == 1
}

/// In a spawned child: runs its function and ends the process. In all others: lets [`Process::spawn`] work.
///
/// Call it at the beginning of `main`. What comes before it runs in every child as well, and what comes after
/// it only in the main process. So start no threads, and print nothing, before it; reading the arguments is
/// fine. Calling it again does nothing.
///
/// A child never returns from it: it waits for its function and arguments, calls the function, sends what it
/// returned, and exits with code 0; or 101 if the function panicked. If its parent dies before, it exits too.
///
/// In a program that was started in any other way it does not block, and returns at once. It then sees to it
/// that children are waited for when the program exits normally: see
/// [`Builder::daemon`](crate::Builder::daemon).
///
/// [`Process::spawn`]: crate::Process::spawn
///
/// # Example
///
/// ```
/// use polyproc_process::Process;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     polyproc_process::init();
///     let process = Process::spawn(|| println!("Hello!"), ())?;
///     process.join()?;
///     Ok(())
/// }
/// ```
pub fn init() {
    start(|| {});
}

/// What [`init_for_tests!`](crate::init_for_tests) calls.
#[doc(hidden)]
pub fn init_before_main() {
    // Rust's runtime does that on its way to `main`, where a child never arrives.
    start(raw::ignore_broken_pipes);
}

fn start(in_child: impl FnOnce()) {
    image::prepare();
    // Relaxed: nothing depends on it but who goes on. Of two threads that call at once, one does.
    if DONE.swap(1, Ordering::Relaxed) == 1 {
        return;
    }
    // Pipes and queues would have it done when they need it. With a second thread that takes the kernel
    // milliseconds; now there is one, as a rule.
    membarrier::is_registered();
    match child::origin() {
        Origin::Elsewhere => family::await_children_at_exit(),
        Origin::CutOff => child::cut_off(),
        Origin::Child(control) => {
            in_child();
            child::run(control)
        }
    }
}

/// Calls [`init`] before `main`, for programs whose `main` is not theirs: tests.
///
/// Put it once anywhere in a test file, or in the library's `lib.rs` under `#[cfg(test)]`. `cargo test` has a
/// `main` of its own, so that nothing else could call `init` in time.
///
/// A child then runs its function before Rust's own preparations for `main`. That makes two differences: the
/// thread has no name, and a stack overflow is a plain `SIGSEGV`.
///
/// # Example
///
/// ```
/// polyproc_process::init_for_tests!();
///
/// // A test, that is with `#[test]` in front of it:
/// fn children_can_count() {
///     let process = polyproc_process::Process::spawn(|n: u32| n + 1, (41,)).unwrap();
///     assert_eq!(process.join().unwrap(), 42);
/// }
/// # fn main() {
/// #     children_can_count();
/// # }
/// ```
#[macro_export]
macro_rules! init_for_tests {
    () => {
        const _: () = {
            extern "C" fn start() {
                $crate::init_before_main();
            }

            // The C library calls what it finds in this section before it calls `main`.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static START: extern "C" fn() = start;
        };
    };
}
