//! Panics in a child: caught, and told to the parent with their message and place.

use crate::channel::{Outcome, Verdict};
use crate::family;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

thread_local! {
    /// This thread's last panic.
    static LAST: RefCell<Option<Noted>> = const { RefCell::new(None) };
}

/// What the hook saw of a panic.
struct Noted {
    message: String,
    location: Option<String>,
}

/// Where the verdict goes if a panic ends the process at once. Only in programs that are built so.
static LAST_WORDS: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Whether the hook is in place: 0 or 1. A forked child of a child inherits it.
static HOOKED: AtomicU32 = AtomicU32::new(0);

/// From here on a panic says in which process it is, and its place is kept for [`catch`].
pub(crate) fn watch(control: &OwnedFd) {
    if cfg!(panic = "abort") {
        *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = control.try_clone().ok();
    }
    // Relaxed: called by the one thread that a new process has.
    if HOOKED.swap(1, Ordering::Relaxed) == 0 {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            note(info);
            if let Some(name) = family::try_name() {
                // Not `eprint`, which panics where nobody reads.
                let _ = write!(io::stderr(), "\nprocess {name} ({}):", std::process::id());
            }
            previous(info);
            say_last_words(info);
        }));
    }
}

/// What `f` returns, or that it panicked.
pub(crate) fn catch(f: impl FnOnce() -> Outcome) -> Outcome {
    // What a fork has copied is another's panic.
    LAST.take();
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let message = message(&*payload);
        // `resume_unwind` runs no hook: what was noted last may be another panic, which the function has caught.
        let noted = LAST.take().filter(|noted| noted.message == message);
        let location = noted.and_then(|noted| noted.location);
        // Its destructor could panic again, and the process ends anyway.
        std::mem::forget(payload);
        panicked(message, location)
    })
}

fn panicked(message: String, location: Option<String>) -> Outcome {
    let location = location.unwrap_or_else(|| "unknown place".into());
    Outcome::of(Verdict::Panicked { message, location })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}

fn note(info: &PanicHookInfo<'_>) {
    let noted =
        Noted { message: message(info.payload()), location: info.location().map(ToString::to_string) };
    // Not there any more if a thread panics while it ends.
    let _ = LAST.try_with(|slot| slot.replace(Some(noted)));
}

/// In a program whose panics abort, nobody gets to [`catch`]: the parent is told right here.
fn say_last_words(info: &PanicHookInfo<'_>) {
    if cfg!(panic = "abort") {
        let control = LAST_WORDS.try_lock().ok().and_then(|mut control| control.take());
        if let Some(control) = control {
            panicked(message(info.payload()), info.location().map(ToString::to_string)).send(control.as_fd());
        }
    }
}
