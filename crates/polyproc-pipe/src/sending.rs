//! What an [`End`] does to send.

mod slowly;

#[cfg(any(test, feature = "tokio"))]
pub(crate) use slowly::Sent;

use crate::barrier;
use crate::end::End;
use crate::gate::Inside;
use crate::pulse::Pulse;
use crate::ring::{Broken, Kind, RUN_MOST, Run, Sender};
use crate::socket;
use polyproc_sys::atomic::AtomicU32;
use polyproc_sys::deadline::Deadline;
use std::hint::cold_path;
use std::io;
use std::os::fd::BorrowedFd;

/// The most bytes in a message that follows one like it without a look.
const FOLLOWER: usize = 256;

/// Why nothing was sent.
#[derive(Debug)]
pub(crate) enum SendRefusal {
    Full,
    Disconnected,
    TooLarge(usize),
    Corrupt,
    Closed,
    Io(io::Error),
}

impl From<Broken> for SendRefusal {
    fn from(_: Broken) -> SendRefusal {
        SendRefusal::Corrupt
    }
}

/// What the one who sends has. First what every message needs.
#[repr(C)]
pub(crate) struct Sending {
    pub(crate) ring: Sender,
    pub(crate) pulse: Pulse,
    /// Of the next message with descriptors.
    pub(crate) serial: u64,
    pub(crate) is_broken: bool,
    /// It was said that nothing more comes.
    pub(crate) is_final: bool,
    /// A task has sent a part of a message, and will send the rest.
    pub(crate) is_under_way: bool,
    /// Whoever is inside has said at the door that it waits.
    pub(crate) has_parked: bool,
}

impl End {
    /// Sends one message, by [`Sender`]. Rings the bell if the receiver sleeps, unless `quietly`.
    #[inline(always)]
    pub(crate) fn send(&self, bytes: &[u8], deadline: Deadline, quietly: bool) -> Result<(), SendRefusal> {
        let Some(mut sending) = self.sending.enter_owned() else {
            return set_aside(bytes, |bytes| self.send_as_any(bytes, deadline, quietly));
        };
        // Nobody owns the gate of an end that is closed, or broken.
        let (receiver, kind) = (sending.ring.receiver(), Kind::of(bytes.len()));
        let run = sending.ring.run();
        let open = if receiver.has_notice() {
            None
        } else if run.is_open(kind) {
            Some(run)
        } else if run.is_full(kind) {
            cold_path();
            sending.open_line(kind, &self.heard)
        } else {
            None
        };
        if let Some(run) = open {
            sending.ring.go_on(run, bytes);
        } else if !sending.follows(bytes) {
            return set_aside(bytes, |bytes| self.send_record(sending.into(), bytes, deadline, quietly));
        }
        barrier::light_here();
        if receiver.has_notice() {
            self.hear(&sending, quietly);
        }
        Ok(())
    }

    /// As a thread to which the gate does not belong.
    #[cold]
    #[inline(never)]
    fn send_as_any(&self, bytes: &[u8], deadline: Deadline, quietly: bool) -> Result<(), SendRefusal> {
        let sending = self.enter_sending(deadline)?;
        if sending.is_broken || sending.is_final || sending.is_under_way || self.is_closed() {
            return self.send_otherwise(sending, bytes, &[], deadline);
        }
        self.send_record(sending, bytes, deadline, quietly)
    }

    /// Sends a message in a record of its own, or the first one of a run.
    #[inline(never)]
    fn send_record<'a>(
        &'a self,
        mut sending: Inside<'a, Sending>,
        bytes: &[u8],
        deadline: Deadline,
        quietly: bool,
    ) -> Result<(), SendRefusal> {
        // Nothing follows any more: it is not like the one before, or there is a notice. The clock is looked
        // at for as many messages as were sent, not for each.
        let left = sending.ring.takes_leave_of_records();
        sending.pulse.takes_back(left);
        // Before it is sent: what was sent may be received before the other side lets go, and is not to come
        // back.
        if sending.ring.receiver().hears_farewell() | sending.pulse.is_due(&self.heard) {
            self.take_pulse(&mut sending)?;
        }
        let run = sending.ring.run();
        if !sending.ring.has_no_run() && run.is_open(Kind::of(bytes.len())) {
            sending.ring.go_on(run, bytes);
        } else if bytes.len() <= sending.ring.most() && sending.ring.has_room(bytes.len()) {
            if sending.pulse.is_stream() {
                sending.ring.fetch_ahead(bytes.len());
            }
            let is_burst = sending.pulse.is_burst();
            // Only its owner has them follow.
            let may_be_followed = is_for_records(bytes)
                && sending.pulse.is_stream()
                && sending.ring.is_like_the_last(bytes.len())
                && Inside::is_owner(&sending);
            if sending.ring.write(bytes, 0, is_burst).is_err() {
                self.break_off(&mut sending);
                return Err(SendRefusal::Corrupt);
            }
            // Those that will go on with it ask nobody, nor those that will follow.
            let others = if may_be_followed {
                let credit = sending.pulse.credit();
                sending.ring.allows_records(credit)
            } else {
                sending.ring.room_in_run()
            };
            sending.pulse.spend(others);
        } else {
            return self.send_otherwise(sending, bytes, &[], deadline);
        }
        Inside::light(&sending);
        if sending.ring.receiver().has_notice() {
            self.hear(&sending, quietly);
        }
        Ok(())
    }

    /// Sends one message with descriptors.
    pub(crate) fn send_with(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        let sending = self.enter_sending(deadline)?;
        self.send_otherwise(sending, bytes, descriptors, deadline)
    }

    #[inline(always)]
    fn enter_sending(&self, deadline: Deadline) -> Result<Inside<'_, Sending>, SendRefusal> {
        let refused = || if self.sending.is_lost() { SendRefusal::Corrupt } else { SendRefusal::Full };
        self.sending.enter(deadline).ok_or_else(refused)
    }

    /// After something was sent: rings the bell if there is a reason for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn hear(&self, sending: &Sending, quietly: bool) {
        if !quietly && sending.ring.has_to_ring() {
            socket::ring(self.socket());
        }
    }

    /// Nothing is sent any more.
    pub(crate) fn break_off(&self, sending: &mut Sending) {
        sending.is_broken = true;
        self.sending.disown();
    }

    /// Rings the bell for what was sent quietly.
    pub(crate) fn ring(&self) {
        if let Some(sending) = self.sending.enter(Deadline::NEVER)
            && sending.ring.has_to_ring()
        {
            socket::ring(self.socket());
        }
    }

    /// Asks whether anybody is left.
    #[cold]
    #[inline(never)]
    fn take_pulse(&self, sending: &mut Sending) -> Result<(), SendRefusal> {
        if socket::is_gone(self.socket()) {
            // Nobody will be there again: nothing is sent any more without asking, by the owner of the gate
            // neither.
            sending.pulse.is_over();
            self.sending.disown();
            return Err(SendRefusal::Disconnected);
        }
        sending.pulse.is_alive();
        Ok(())
    }

    /// Says that nothing more is sent.
    pub(crate) fn close_sending(&self) -> Result<(), SendRefusal> {
        let mut sending = self.enter_sending(Deadline::NEVER)?;
        while sending.is_under_way {
            sending = self.enter_again(sending, Deadline::NEVER)?;
        }
        if sending.is_final || self.is_closed() {
            return Ok(());
        }
        if sending.is_broken || sending.ring.write_final().is_err() {
            self.break_off(&mut sending);
            return Err(SendRefusal::Corrupt);
        }
        sending.is_final = true;
        self.sending.disown();
        self.hear(&sending, false);
        Ok(())
    }
}

/// Whether a message is too long for a run, and not so long that its look costs next to nothing.
#[inline(always)]
fn is_for_records(bytes: &[u8]) -> bool {
    (RUN_MOST + 1..=FOLLOWER).contains(&bytes.len())
}

/// Calls `send` with the bytes, if they are few with a copy of them: where it is not called, they need not be
/// in memory.
#[inline(always)]
fn set_aside<T>(bytes: &[u8], send: impl FnOnce(&[u8]) -> T) -> T {
    if bytes.len() > RUN_MOST {
        return send(bytes);
    }
    let mut copy = [0; RUN_MOST];
    copy[..bytes.len()].copy_from_slice(bytes);
    send(&copy[..bytes.len()])
}

impl Sending {
    /// Sends a message in a record like the last one, if that may follow.
    #[inline(always)]
    fn follows(&mut self, bytes: &[u8]) -> bool {
        let receiver = self.ring.receiver();
        is_for_records(bytes)
            && self.ring.may_follow(bytes.len())
            && !receiver.has_notice()
            && self.ring.follow(bytes).is_ok()
    }

    /// Opens a line for a message that begins one as the last one did: that is one of seven in a stream of
    /// numbers.
    #[inline(always)]
    fn open_line(&mut self, kind: Kind, heard: &AtomicU32) -> Option<Run> {
        if !self.ring.may_open_line() && !self.allows_lines(kind, heard) {
            return None;
        }
        self.ring.open_line(kind).ok()
    }

    /// Asks, for some lines, what has to be asked.
    #[cold]
    #[inline(never)]
    fn allows_lines(&mut self, kind: Kind, heard: &AtomicU32) -> bool {
        let is_burst = self.pulse.has_credit()
            || self.pulse.is_burst() && !self.pulse.is_due(heard) && self.pulse.has_credit();
        if !is_burst {
            return false;
        }
        let lines = self.pulse.credit().div_ceil(kind.most());
        let is_allowed = self.ring.allows_lines(lines) == Ok(true);
        if is_allowed {
            // Those who go on with them ask nobody.
            self.pulse.spend(lines * kind.most());
        }
        is_allowed
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use crate::end::{CAPACITY, shape};
    use crate::ring::Front;

    /// A sender that waits for room waits for a receiver, which is not to wait for what the sender keeps.
    #[test]
    fn who_waits_for_room_holds_nothing_back() {
        let size = *CAPACITY.end();
        let (here, there) = End::pair(&shape(size as u64, 0).unwrap(), size as u64).unwrap();
        let short = vec![1; 40_000];
        here.send(&short, Deadline::NEVER, false).unwrap();
        let mut sending = here.sending.enter(Deadline::NEVER).unwrap();
        let mut receiving = there.receiving.enter(Deadline::NEVER).unwrap();
        let (bytes, mut sent) = (vec![2; 3 << 20], Sent::default());
        for _ in 0..3 {
            let length = here.next_part(&sending, &bytes, &[], &sent);
            assert!(here.finds_room(&mut sending, length).unwrap());
            assert!(!here.send_part(&mut sending, &bytes, &[], &mut sent, Deadline::NEVER).unwrap());
        }
        let mut got = Vec::new();
        receiving.ring.take_into(Front::Whole(short.len(), 0), &mut got);
        assert_eq!(receiving.ring.front(), Ok(Front::Nothing), "nothing is held back");
        receiving.ring.line().falls_asleep();
        assert!(!here.finds_room(&mut sending, size).unwrap());
        assert!(!receiving.ring.line().is_asleep(), "who sleeps has not heard of it");
        assert_eq!(receiving.ring.front(), Ok(Front::First(bytes.len(), 0)));
    }

    /// Looks at the clock are for many messages together, whatever their lengths.
    #[test]
    fn a_stream_of_records_looks_at_the_clock_rarely_also_where_none_may_follow() {
        let size = *CAPACITY.end() as u64;
        // Of lengths in turn; to one that sleeps, without a bell; from a thread to which the gate does not
        // belong.
        for (lengths, sleeps, is_owned) in
            [([56, 72], false, true), ([56, 56], true, true), ([56, 56], false, false)]
        {
            // Who is interrupted in the middle is in no stream.
            let least = (0..100).map(|_| {
                let (here, there) = End::pair(&shape(size, 0).unwrap(), size).unwrap();
                if sleeps {
                    there.receiving.enter(Deadline::NEVER).unwrap().ring.line().falls_asleep();
                }
                if !is_owned {
                    here.sending.disown();
                }
                let (mut looks, mut looked) = (0, 0);
                for n in 0..2_000 {
                    here.send(&[1; 72][..lengths[n % 2]], Deadline::NEVER, true).unwrap();
                    let sending = here.sending.enter(Deadline::NEVER).unwrap();
                    let now = sending.pulse.looked();
                    looks += u64::from(n >= 1_000 && core::mem::replace(&mut looked, now) != now);
                }
                looks
            });
            let least = least.min().unwrap();
            assert!(least < 100, "{lengths:?} {sleeps} {is_owned}: {least} looks for 1000 messages");
        }
    }

    /// It asks whether anybody is left before it sends the next one.
    #[test]
    fn a_record_that_may_follow_does_not_after_a_farewell() {
        let size = *CAPACITY.end() as u64;
        let (here, there) = End::pair(&shape(size, 0).unwrap(), size).unwrap();
        here.send(&[1; 56], Deadline::NEVER, false).unwrap();
        assert_eq!(here.sending.enter(Deadline::NEVER).unwrap().ring.allows_records(10), 10);
        there.receiving.enter(Deadline::NEVER).unwrap().ring.line().say_farewell();
        here.send(&[1; 56], Deadline::NEVER, false).unwrap();
        let sending = here.sending.enter(Deadline::NEVER).unwrap();
        assert!(!sending.ring.receiver().hears_farewell(), "nobody has heard it");
    }
}
