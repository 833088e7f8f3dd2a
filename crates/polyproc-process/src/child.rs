//! The child's side of a start: finds out that it is one, hears what to run, runs it, and tells what became
//! of it.

use crate::channel::{self, Outcome, Start};
use crate::family::{self, Parent, family};
use crate::raw::{self, Identity};
use crate::{entry, panics};
use nix::sys::signal::SigSet;
use polyproc_memory::Said;
use polyproc_sys::deadline::Deadline;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

/// The environment variable by which a child knows that it is one: the control socket's number and identity,
/// and the parent's id.
pub(crate) const MARKER: &str = "POLYPROC_CHILD";

/// What the environment says about the start of this process.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Started by something else: by hand, or by a child that let its environment be inherited.
    Elsewhere,
    /// Started to run a function, which its parent is about to name here.
    Child(OwnedFd),
    /// Started to run a function, but somebody has closed the control socket before [`init`](crate::init).
    CutOff,
}

/// The marker for a child of this process with this control socket.
pub(crate) fn marker(control: Identity) -> String {
    format!("{}:{}:{}:{}", raw::CONTROL, control.device, control.inode, std::process::id())
}

/// How this process was started. To be asked once.
///
/// A marker is believed only if the socket that it speaks of is there. It stays in the environment, where it
/// harms nobody: no other process has that socket under that number.
pub(crate) fn origin() -> Origin {
    let Some((number, identity, parent)) = std::env::var(MARKER).ok().and_then(|marker| parse(&marker))
    else {
        return Origin::Elsewhere;
    };
    if raw::is_privileged() {
        return Origin::Elsewhere;
    }
    match raw::adopt(number, identity) {
        Some(control) => Origin::Child(control),
        None if raw::was_started_again() && std::os::unix::process::parent_id() == parent => Origin::CutOff,
        None => Origin::Elsewhere,
    }
}

fn parse(marker: &str) -> Option<(i32, Identity, u32)> {
    let mut fields = marker.split(':');
    let number = fields.next()?.parse().ok()?;
    let device = fields.next()?.parse().ok()?;
    let inode = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some((number, Identity { device, inode }, parent))
}

/// What a process ends with that cannot do what it was started for.
const UNAVAILABLE: i32 = 69;

/// Ends a process that should run a function and will never hear which: it must not run `main` in its place.
pub(crate) fn cut_off() -> ! {
    let complaint =
        format!("polyproc: something closed descriptor {} before `init()` was called", raw::CONTROL);
    let _ = writeln!(io::stderr(), "{complaint}");
    std::process::exit(UNAVAILABLE)
}

/// Runs what the parent says, and ends the process.
pub(crate) fn run(control: OwnedFd) -> ! {
    let code = match channel::receive(control.as_fd(), 0) {
        Ok(Some(message)) => {
            family::await_children_at_exit();
            perform(&control, message).send(control.as_fd())
        }
        // The parent is gone.
        Ok(None) => UNAVAILABLE,
        Err(error) => Outcome::arguments(Said(&error)).send(control.as_fd()),
    };
    std::process::exit(code)
}

fn perform(control: &OwnedFd, message: channel::Message) -> Outcome {
    let mut descriptors = message.descriptors.into_iter();
    let (Some(parent), Ok((start, arguments))) =
        (descriptors.next(), postcard::take_from_bytes::<Start>(&message.body))
    else {
        return Outcome::arguments("malformed start message");
    };
    if start.daemon
        && let Err(error) = end_with(&parent)
    {
        return Outcome::arguments(Said(&error));
    }
    set_title();
    let parent = Parent::new(start.parent_pid, start.parent_name.clone(), parent);
    family().descend(start.name.clone(), start.path.clone(), start.daemon, parent);
    panics::watch(control);
    entry::run(&start, arguments, descriptors.collect())
}

/// Starts a thread that kills this process when its parent is gone, or right now if it is gone already.
fn end_with(parent: &OwnedFd) -> io::Result<()> {
    let parent = parent.try_clone()?;
    let itself = raw::open_process(std::process::id() as libc::pid_t)?;
    // The thread inherits the mask: the program's signals are not for it.
    let mask = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    let watcher =
        thread::Builder::new().name("polyproc-parent".into()).stack_size(64 << 10).spawn(move || {
            let _ = crate::running::is_ready(parent.as_fd(), Deadline::NEVER);
            let _ = raw::send_signal(itself.as_fd(), libc::SIGKILL);
        });
    mask.thread_set_mask()?;
    watcher.map(drop)
}

/// The kernel calls a process after the path that started it, which here would be `exe`.
fn set_title() {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|name| CString::new(name.as_bytes()));
    if let Some(Ok(name)) = name {
        raw::set_title(&name);
    }
}

/// Ends a forked child with what became of its function.
pub(crate) fn end_forked(control: &OwnedFd, outcome: Outcome) -> ! {
    let code = outcome.send(control.as_fd());
    // What the function left in the buffers. Nobody is left to be told if it cannot be written.
    let _ = io::stdout().flush();
    family::end_children();
    raw::exit_now(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_back() {
        let identity = Identity { device: 8, inode: u64::MAX };
        assert_eq!(parse(&marker(identity)), Some((3, identity, std::process::id())));
    }

    #[test]
    fn malformed_markers_are_none() {
        for marker in [
            "",
            "3",
            "3:8:1",
            "3:8:1:2:3",
            "x:8:1:2",
            "3:-8:1:2",
            "3:8:1:",
            ":::",
            "3:8:99999999999999999999:1",
        ] {
            assert_eq!(parse(marker), None, "{marker:?}");
        }
    }
}
