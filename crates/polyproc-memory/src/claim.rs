//! [`Claim`]: a process says that it works on an object, in a way that ends when the process does, and no
//! earlier.

use crate::object::Object;
use polyproc_sys::atomic::{Ordering, fence};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// What it takes to [claim](Claimant::claim) an object again and again.
///
/// A claim is a lock of the memory file's own, which the kernel keeps for an open file: for one that this
/// process has opened for itself, since the one that came with the handle is the same in all processes. It
/// costs a descriptor.
#[derive(Debug)]
pub struct Claimant {
    file: File,
    /// The byte of the file that stands for the object.
    place: u64,
}

/// A claim on an object: as long as it is there, the object [is claimed](Object::is_claimed).
///
/// If its process is killed, the kernel takes it back after the last thread has executed its last
/// instruction. A process that is stopped keeps it. A child that is forked meanwhile has the claim as well,
/// until it ends or executes another program, or this process drops the claim.
#[derive(Debug)]
pub struct Claim<'a> {
    claimant: &'a Claimant,
    /// Whose it is: a forked child has a copy.
    pid: u32,
}

impl Object {
    /// Opens the object's memory file once more, to claim the object.
    ///
    /// # Errors
    ///
    /// If no descriptor is left, `/proc` is not there, or this process belongs to another user by now.
    pub fn claimant(&self) -> io::Result<Claimant> {
        let path = format!("/proc/self/fd/{}", self.region().mapping().file().as_raw_fd());
        Ok(Claimant { file: File::open(path)?, place: self.offset() })
    }

    /// Whether anybody claims the object, in whatever process. If nobody does, everything that earlier
    /// claimants have written there is visible from here on. Does not block.
    ///
    /// # Errors
    ///
    /// What the system says if it has no such locks.
    pub fn is_claimed(&self) -> io::Result<bool> {
        let mut lock = lock(libc::F_WRLCK, self.offset());
        control(self.region().mapping().file(), libc::F_OFD_GETLK, &mut lock)?;
        // Pairs with the one in `Claim::drop`: the kernel looks at its list of locks without one of its own.
        fence(Ordering::SeqCst);
        Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
    }
}

impl Claimant {
    /// Claims the object. Others may as well, each by a claimant of its own: to the kernel the claims of one
    /// are one, and the first to end would end them all. Does not block.
    ///
    /// # Errors
    ///
    /// If the system has no room for a lock.
    pub fn claim(&mut self) -> io::Result<Claim<'_>> {
        control(&self.file, libc::F_OFD_SETLK, &mut lock(libc::F_RDLCK, self.place))?;
        Ok(Claim { claimant: self, pid: std::process::id() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // In a forked child it is the parent's to let go.
        if self.pid == std::process::id() {
            // Pairs with the one in `is_claimed`: all that was written under the claim comes before its end.
            fence(Ordering::SeqCst);
            // It cannot fail: it takes away a whole lock.
            let _ = control(
                &self.claimant.file,
                libc::F_OFD_SETLK,
                &mut lock(libc::F_UNLCK, self.claimant.place),
            );
        }
    }
}

fn lock(kind: libc::c_int, place: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        // A place in a file that is there.
        l_start: place as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

fn control(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the command takes a pointer to a `flock`, which is readable and writable.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, core::ptr::from_mut(lock)) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::shape::{Kind, Shape};
    use crate::{Arena, Object};
    use core::alloc::Layout;

    #[test]
    fn an_object_is_claimed_as_long_as_there_is_a_claim() {
        let payload = Layout::new::<u64>();
        let shape =
            Shape { kind: Kind::new("test"), code: 0, element: payload, count: 1, payload, lock: false };
        let arena = Arena::new(4096).unwrap();
        let [object, neighbour] = [(); 2].map(|()| Object::create(Some(&arena), &shape).unwrap());
        assert!(!object.is_claimed().unwrap());
        let (mut one, mut other) = (object.claimant().unwrap(), object.claimant().unwrap());
        let claims = (one.claim().unwrap(), other.claim().unwrap());
        assert!(object.is_claimed().unwrap() && !neighbour.is_claimed().unwrap());
        drop(claims.0);
        assert!(object.is_claimed().unwrap());
        drop(claims.1);
        assert!(!object.is_claimed().unwrap());
        let mut third = object.claimant().unwrap();
        std::mem::forget(third.claim().unwrap());
        assert!(object.is_claimed().unwrap());
        drop(third);
        assert!(!object.is_claimed().unwrap(), "its file is closed");
    }
}
