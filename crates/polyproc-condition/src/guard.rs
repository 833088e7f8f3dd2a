//! The guards that can be waited with.

use polyproc_mutex::{MutexGuard, RLockGuard};

/// A lock that is held, of a kind that a [`Condition`](crate::Condition) can release and take again.
///
/// [`MutexGuard`] and [`RLockGuard`]; no others.
pub trait Guard: sealed::Lock {
    /// What a predicate gets to see: `&mut T` of a mutex, `&T` of an `RLock`.
    type Data<'d>;

    /// Asks a predicate about the data.
    #[doc(hidden)]
    fn ask(&mut self, predicate: &mut impl for<'d> FnMut(Self::Data<'d>) -> bool) -> bool;
}

impl<T: 'static> Guard for MutexGuard<'_, T> {
    type Data<'d> = &'d mut T;

    fn ask(&mut self, predicate: &mut impl for<'d> FnMut(&'d mut T) -> bool) -> bool {
        predicate(self)
    }
}

impl<T: 'static> Guard for RLockGuard<'_, T> {
    type Data<'d> = &'d T;

    fn ask(&mut self, predicate: &mut impl for<'d> FnMut(&'d T) -> bool) -> bool {
        predicate(self)
    }
}

/// What happens to the lock, which is this crate's business.
pub(crate) mod sealed {
    use polyproc_mutex::{MutexGuard, PoisonCause, RLockGuard, Refusal};
    use polyproc_sys::deadline::Deadline;

    /// A lock that can be released for a while.
    pub trait Lock {
        /// Panics if it cannot be.
        #[track_caller]
        fn check(&self);

        /// Releases it. Returns how often it was held.
        ///
        /// # Safety
        ///
        /// It has been [checked](Lock::check), and nothing is done with the guard but `retake`.
        unsafe fn release(&self) -> u32;

        /// Takes it so often.
        ///
        /// # Errors
        ///
        /// None that happens to a thread that has just released it.
        ///
        /// # Safety
        ///
        /// It was released by this thread just before.
        unsafe fn retake(&self, times: u32) -> Result<(), Refusal>;

        /// Why its data may be half changed, if so.
        fn poison_cause(&self) -> Option<PoisonCause>;
    }

    const INHERITED: &str =
        "waiting with a guard that was inherited through a fork: the lock is the parent's";

    impl<T> Lock for MutexGuard<'_, T> {
        fn check(&self) {
            assert!(!MutexGuard::section(self).is_inherited(), "{INHERITED}");
        }

        unsafe fn release(&self) -> u32 {
            let raw = MutexGuard::section(self).raw();
            raw.leave();
            // SAFETY: the guard is this thread's, which is not `Send`, and not inherited: the caller has
            // checked.
            unsafe { raw.unlock() };
            1
        }

        unsafe fn retake(&self, _: u32) -> Result<(), Refusal> {
            let raw = MutexGuard::section(self).raw();
            // SAFETY: the guard borrows the handle, whose object keeps the lock mapped.
            unsafe { raw.lock_until(Deadline::NEVER)? };
            raw.enter();
            Ok(())
        }

        fn poison_cause(&self) -> Option<PoisonCause> {
            MutexGuard::section(self).raw().poison_cause()
        }
    }

    impl<T> Lock for RLockGuard<'_, T> {
        fn check(&self) {
            assert!(!RLockGuard::is_inherited(self), "{INHERITED}");
            // Another guard of this thread gives out `&T`, and others may change the data while this thread
            // waits.
            let depth = RLockGuard::raw(self).depth();
            assert!(
                size_of::<T>() == 0 || depth == 1,
                "waiting with an RLock that is held {depth} times would change the data under the other guards; \
                 use an RLock<()>"
            );
        }

        unsafe fn release(&self) -> u32 {
            // SAFETY: the guard is this thread's, which is not `Send`, and not inherited: the caller has
            // checked.
            unsafe { RLockGuard::raw(self).unlock_all() }
        }

        unsafe fn retake(&self, times: u32) -> Result<(), Refusal> {
            // SAFETY: the guard borrows the handle, whose object keeps the lock mapped; released before.
            unsafe { RLockGuard::raw(self).lock_again(times) }
        }

        fn poison_cause(&self) -> Option<PoisonCause> {
            RLockGuard::raw(self).mutex().poison_cause()
        }
    }
}
