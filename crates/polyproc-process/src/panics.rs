//! Panics in a child: caught, and told to the parent with their message and place.

use crate::channel::{Outcome, Verdict};
use crate::family;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

thread_local! {
    /// This thread's last panic.
    static LAST: RefCell<Option<Noted>> = const { RefCell::new(None) };
    /// Whether this thread is in a [`catch_traced`], and wants to know how it came to a panic.
    static IS_TRACED: Cell<bool> = const { Cell::new(false) };
}

/// What the hook saw of a panic.
struct Noted {
    message: String,
    location: Option<String>,
    backtrace: String,
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Panic {
    /// Its message; `no message` if its payload is no text.
    pub message: String,
    /// File, line and column; `unknown place` if `resume_unwind` began it.
    pub location: String,
    /// The calls that led to it; empty if nobody wanted to know, or `RUST_BACKTRACE` is `0`.
    pub backtrace: String,
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
    watch_here();
}

/// The part of [`watch`] that needs no parent.
pub(crate) fn watch_here() {
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
    catch_panic(f).unwrap_or_else(|panic| panicked(panic.message, panic.location))
}

/// What `f` returns.
///
/// # Errors
///
/// Its panic, with how it came to it.
pub fn catch_traced<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    let was_traced = IS_TRACED.replace(true);
    let result = catch_panic(f);
    IS_TRACED.set(was_traced);
    result
}

fn catch_panic<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    // What a fork has copied is another's panic.
    LAST.take();
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let message = message(&*payload);
        // `resume_unwind` runs no hook: what was noted last may be another panic, which the function has
        // caught.
        let noted = LAST.take().filter(|noted| noted.message == message);
        let (location, backtrace) = match noted {
            Some(noted) => (noted.location, noted.backtrace),
            None => (None, String::new()),
        };
        // Its destructor could panic again.
        std::mem::forget(payload);
        Panic { message, location: location.unwrap_or_else(|| "unknown place".into()), backtrace }
    })
}

fn panicked(message: String, location: String) -> Outcome {
    Outcome::of(Verdict::Panicked { message, location })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}

fn note(info: &PanicHookInfo<'_>) {
    let is_wanted = IS_TRACED.try_with(Cell::get).unwrap_or(false)
        && std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0");
    let noted = Noted {
        message: message(info.payload()),
        location: info.location().map(ToString::to_string),
        backtrace: if is_wanted { Backtrace::force_capture().to_string() } else { String::new() },
    };
    // Not there any more if a thread panics while it ends.
    let _ = LAST.try_with(|slot| slot.replace(Some(noted)));
}

/// In a program whose panics abort, nobody gets to [`catch`]: the parent is told right here.
fn say_last_words(info: &PanicHookInfo<'_>) {
    if cfg!(panic = "abort") {
        let control = LAST_WORDS.try_lock().ok().and_then(|mut control| control.take());
        if let Some(control) = control {
            let location = info.location().map_or_else(|| "unknown place".into(), ToString::to_string);
            panicked(message(info.payload()), location).send(control.as_fd());
        }
    }
}
