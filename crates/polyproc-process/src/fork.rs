//! A process by `fork` alone, for programs of one thread.

#![allow(unsafe_code)]

use crate::channel;
use crate::error::SpawnError;
use crate::family::{self, Parent, family};
use crate::process::Process;
use crate::start::{self, Started};
use crate::{child, entry, panics, raw};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};

impl<R: Serialize + DeserializeOwned> Process<R> {
    /// Starts a process that is a copy of this one, and runs `f` there.
    ///
    /// Memory, descriptors and environment are this process's, as they are at this moment; afterwards each
    /// has its own. `f` may capture what it likes, and is dropped here as well as there. Shared memory stays
    /// shared: handles work on both sides. But locks that this process holds are not the child's: an
    /// inherited guard is inert. The child ends when `f` returns, without running the exit handlers that it
    /// inherited; standard output is flushed. [`init`](crate::init) is not needed.
    ///
    /// Costs what the system takes to copy the page tables: some 100 µs for a small process, and tens of
    /// milliseconds for one that uses a gigabyte.
    ///
    /// # Safety
    ///
    /// This process has one thread; a [daemon](crate::Builder::daemon) has two. A lock that another thread
    /// holds at this moment, `malloc`'s included, would stay locked in the child for ever, with what it
    /// guards half changed.
    ///
    /// # Errors
    ///
    /// [`SpawnError::System`]. Nothing is left behind; but where the program ignores `SIGCHLD`, and the
    /// system has no pidfd to give, `f` runs in a process that nobody can join.
    ///
    /// # Example
    ///
    /// ```standalone_crate
    /// use polyproc_process::Process;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let factor = 6;
    /// // SAFETY: this program has one thread.
    /// let process = unsafe { Process::fork(|| factor * 7) }?;
    /// assert_eq!(process.join()?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn fork(f: impl FnOnce() -> R) -> Result<Process<R>, SpawnError> {
        family::await_children_at_exit();
        let (control, theirs) = channel::pair().map_err(SpawnError::system("socketpair"))?;
        // What is in the buffer would be written twice.
        let _ = io::stdout().flush();
        let mut family = family();
        let itself = family.itself().map_err(SpawnError::system("pidfd_open"))?;
        let itself = itself.try_clone().map_err(SpawnError::system("dup"))?;
        let (path, name) = family.next_child();
        let parent = Parent::new(std::process::id(), family.name.clone(), itself);
        drop(family);
        // SAFETY: the caller's promise that there is no other thread.
        match unsafe { raw::fork() }.map_err(SpawnError::system("fork"))? {
            None => {
                drop(control);
                self::family().descend(name, path, false, parent);
                panics::watch(&theirs);
                let outcome = panics::catch(|| entry::returned(&f()));
                child::end_forked(&theirs, outcome)
            }
            Some(pid) => {
                drop(theirs);
                let running = start::watch(pid, name, false)?;
                family::enter(&running);
                Ok(Process::new(Started { running, control, stdin: None, stdout: None, stderr: None }))
            }
        }
    }
}
