//! A point in monotonic time at which a wait gives up.

use std::time::{Duration, Instant};

/// The longest sleep of most waits that have no deadline: after it the state is looked at again.
///
/// No protocol depends on it. It bounds the damage of the double faults that the protocols' pages name.
pub const BACKSTOP: Duration = Duration::from_millis(250);

/// A point on the system's monotonic clock, or never.
///
/// Timeouts become deadlines once, where they enter; all loops below work with the deadline, so that an
/// interrupted or spurious wake never prolongs a wait. The wall clock plays no part.
///
/// # Example
///
/// ```
/// use polyproc_sys::deadline::Deadline;
/// use std::time::Duration;
///
/// let soon = Deadline::after(Duration::from_secs(1));
/// assert!(!soon.has_passed());
/// assert!(Deadline::after(Duration::ZERO).has_passed());
/// assert!(Deadline::PAST < soon && soon < Deadline::NEVER);
/// // Too far away to be counted is never.
/// assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Nanoseconds on `CLOCK_MONOTONIC`.
    nanos: u64,
}

impl Deadline {
    /// Wait without limit.
    pub const NEVER: Deadline = Deadline { nanos: u64::MAX };
    /// Already over: look once, do not wait.
    pub const PAST: Deadline = Deadline { nanos: 0 };

    /// The point `timeout` from now; zero has passed at once.
    pub fn after(timeout: Duration) -> Deadline {
        let Ok(timeout) = u64::try_from(timeout.as_nanos()) else { return Deadline::NEVER };
        if timeout == 0 {
            return Deadline::PAST;
        }
        Deadline { nanos: now().saturating_add(timeout) }
    }

    /// The same point as `instant`, which may lie in the past.
    pub fn at(instant: Instant) -> Deadline {
        Deadline::after(instant.saturating_duration_since(Instant::now()))
    }

    /// Whether the point has been reached.
    pub fn has_passed(self) -> bool {
        if cfg!(any(polyproc_loom, polyproc_shuttle)) {
            return self != Deadline::NEVER; // In a model all timers run out at once.
        }
        self.nanos == 0 || (self != Deadline::NEVER && now() >= self.nanos)
    }

    /// The time that is left, `None` for [`NEVER`](Deadline::NEVER).
    pub fn remaining(self) -> Option<Duration> {
        (self != Deadline::NEVER).then(|| Duration::from_nanos(self.nanos.saturating_sub(now())))
    }

    /// This deadline, or [`BACKSTOP`] from now if that comes first.
    #[must_use]
    pub fn or_backstop(self) -> Deadline {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        return self;
        #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
        self.min(Deadline::after(BACKSTOP))
    }

    /// The kernel's form, `None` for [`NEVER`](Deadline::NEVER).
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub(crate) fn timespec(self) -> Option<libc::timespec> {
        const SECOND: u64 = 1_000_000_000;
        (self != Deadline::NEVER).then_some(libc::timespec {
            tv_sec: (self.nanos / SECOND) as libc::time_t,
            tv_nsec: (self.nanos % SECOND) as libc::c_long,
        })
    }
}

/// Nanoseconds on `CLOCK_MONOTONIC`.
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to, and the clock exists on every Linux.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    debug_assert_eq!(result, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_past_have_passed() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
        assert!(Deadline::PAST.has_passed());
        assert!(Deadline::at(Instant::now()).has_passed());
        assert!(!Deadline::NEVER.has_passed());
    }

    #[test]
    fn remaining_shrinks_to_zero_and_stays_there() {
        let deadline = Deadline::after(Duration::from_millis(5));
        assert!(deadline.remaining().unwrap() <= Duration::from_millis(5));
        std::thread::sleep(Duration::from_millis(6));
        assert_eq!(deadline.remaining(), Some(Duration::ZERO));
        assert!(deadline.has_passed());
        assert_eq!(Deadline::NEVER.remaining(), None);
    }

    #[test]
    fn far_away_is_never() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert_eq!(Deadline::after(Duration::from_nanos(u64::MAX)), Deadline::NEVER);
    }
}
