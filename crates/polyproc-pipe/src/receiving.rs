//! What an [`End`] does to receive.

use crate::barrier;
use crate::door::RECEIVING;
use crate::end::{End, SLICE};
use crate::gate::Inside;
use crate::ring::{Broken, Front, News, Place, Ready, Receiver, TRUSTED};
use crate::socket;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex;
use std::io;
use std::ops::DerefMut;
use std::os::fd::OwnedFd;

/// The longest pause before the first look for news: some hundred nanoseconds.
const PAUSE: u32 = 16;
/// The same, where several messages have come in it: a microsecond.
const STREAM_PAUSE: u32 = 64;
/// In the time of a spin, twice as many bytes come in records, or as many where lines cross slowly.
const SPIN: u64 = 32;
/// After so many bytes, one record behind the other, the pause may be longer, too.
const FAR: u64 = PAUSE as u64 * SPIN;

/// Why nothing was received.
#[derive(Debug)]
pub(crate) enum RecvRefusal {
    Empty,
    Disconnected,
    TooLong(usize),
    Corrupt,
    Closed,
    /// For descriptors that have come.
    NoRoom,
    Io(io::Error),
}

impl From<Broken> for RecvRefusal {
    fn from(_: Broken) -> RecvRefusal {
        RecvRefusal::Corrupt
    }
}

/// What the one who receives has. First what every message needs.
#[repr(C)]
pub(crate) struct Receiving {
    pub(crate) ring: Receiver,
    /// How long it leaves the sender alone before it looks.
    pub(crate) pause: u32,
    /// How far this side's own sender was when something came that was not there a moment before.
    pub(crate) sent: u64,
    /// What came of the message that has begun, and how many descriptors belong to it.
    pub(crate) torso: Vec<u8>,
    pub(crate) descriptors: usize,
    pub(crate) serial: u64,
    pub(crate) is_broken: bool,
    /// Whoever is inside has said at the door that it waits.
    pub(crate) has_parked: bool,
}

/// What came of asking for the bell.
pub(crate) enum Asked {
    /// Something can be received already, or never will be.
    Ready,
    /// With the next message the bell rings: not surely at once, unless it is `prompt`.
    Waits { prompt: bool },
    /// Another thread is inside, and nobody was asked.
    Busy,
}

impl End {
    /// As the thread to which the gate belongs, inside: stays there if a message of so many bytes, at most
    /// [`BUFFER`](crate::ring::BUFFER), is ready to be taken. If not, or if anything is not as usual,
    /// [`recv`](End::recv) does it.
    #[inline(always)]
    pub(crate) fn find_ready<I: DerefMut<Target = Receiving>>(
        &self,
        mut receiving: I,
        length: usize,
        deadline: Deadline,
    ) -> Option<(I, Ready)> {
        // Nobody owns the gate of an end that is closed, or broken.
        let ring = &mut receiving.ring;
        let ready = match ring.ready(length) {
            None => match ring.begin_next(length) {
                None => self.make_ready(&mut receiving, length, deadline),
                first => first,
            },
            next => next,
        };
        ready.map(|ready| (receiving, ready))
    }

    /// As a thread to which it does not belong: goes in, and stays there.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_to_ready(
        &self,
        length: usize,
        deadline: Deadline,
    ) -> Option<(Inside<'_, Receiving>, Ready)> {
        let receiving = self.receiving.enter(deadline)?;
        let is_over = receiving.is_broken || self.is_closed();
        if is_over { None } else { self.find_ready(receiving, length, deadline) }
    }

    /// If a message of so many bytes can be taken at once.
    #[inline(never)]
    fn make_ready(&self, receiving: &mut Receiving, length: usize, deadline: Deadline) -> Option<Ready> {
        // Of what was taken before.
        self.taken(receiving);
        let mut front = receiving.ring.front();
        if front == Ok(Front::Nothing) && deadline != Deadline::PAST && self.look(receiving) {
            front = receiving.ring.front();
        }
        if front == Ok(Front::Whole(length, 0)) && !receiving.is_broken {
            receiving.ring.make_ready(length)
        } else {
            None
        }
    }

    /// Looks for news, as long as that pays. Who finds it again and again at the first look is in step with
    /// the sender, and each look takes the line away from it that it writes to: then it is left alone for a
    /// moment first.
    #[inline(always)]
    fn look(&self, receiving: &mut Receiving) -> bool {
        let ring = &receiving.ring;
        let news = self.news.look_sparsely(receiving.pause, 1, || ring.news());
        let Some((news, looks)) = news else { return false };
        if self.heard.load(Ordering::Relaxed) == 0 {
            self.heard.store(1, Ordering::Relaxed);
        }
        let most = match news {
            News::Several => STREAM_PAUSE,
            News::Record if receiving.ring.had_come() >= FAR => self.longest_pause(receiving),
            News::One | News::Record => PAUSE,
        };
        receiving.pause = if looks == 1 { (2 * receiving.pause).clamp(1, most) } else { receiving.pause / 2 };
        true
    }

    /// The longest pause after many records, one behind the other: no more than twice as long as it took to
    /// send them. But who has sent something meanwhile waits for an answer.
    #[inline(never)]
    fn longest_pause(&self, receiving: &mut Receiving) -> u32 {
        let sent = self.sent();
        let is_answer = core::mem::replace(&mut receiving.sent, sent) != sent;
        if is_answer { PAUSE } else { (receiving.ring.had_come() / SPIN).min(STREAM_PAUSE.into()) as u32 }
    }

    /// Whether something is in front.
    pub(crate) fn has_news(&self) -> bool {
        let receiving = self.receiving.enter(Deadline::PAST);
        receiving.is_some_and(|mut receiving| receiving.ring.front() != Ok(Front::Nothing))
    }

    /// After something was taken.
    #[inline(always)]
    fn taken(&self, receiving: &mut Receiving) {
        if receiving.ring.has_to_publish() {
            self.publish_head(receiving);
        }
    }

    #[cold]
    #[inline(never)]
    fn publish_head(&self, receiving: &mut Receiving) {
        match receiving.ring.publish() {
            Ok(true) => socket::ring(self.socket()),
            Ok(false) => {}
            // What was received was whole; whatever comes next is not trusted.
            Err(Broken) => self.break_off_receiving(receiving),
        }
    }

    /// Receives one message, of at most so many bytes: appends it to `to`, and returns its descriptors. A
    /// longer one stays where it is.
    pub(crate) fn recv(
        &self,
        to: &mut Vec<u8>,
        max: usize,
        deadline: Deadline,
    ) -> Result<Vec<OwnedFd>, RecvRefusal> {
        let refused = || if self.receiving.is_lost() { RecvRefusal::Corrupt } else { RecvRefusal::Empty };
        let mut receiving = self.receiving.enter(deadline).ok_or_else(refused)?;
        let result = self.recv_records(&mut receiving, to, max, deadline);
        if let Err(RecvRefusal::Corrupt) = result {
            self.break_off_receiving(&mut receiving);
        }
        self.leave_receiving(receiving);
        result
    }

    /// Nothing is received any more.
    fn break_off_receiving(&self, receiving: &mut Receiving) {
        receiving.is_broken = true;
        self.receiving.disown();
    }

    /// Lets the tasks look that found somebody inside who waited.
    fn leave_receiving(&self, mut receiving: Inside<'_, Receiving>) {
        let has_parked = core::mem::take(&mut receiving.has_parked);
        drop(receiving);
        if has_parked {
            self.door.unpark(RECEIVING);
        }
    }

    fn recv_records(
        &self,
        receiving: &mut Receiving,
        to: &mut Vec<u8>,
        max: usize,
        deadline: Deadline,
    ) -> Result<Vec<OwnedFd>, RecvRefusal> {
        // A peer may send parts and take them back without end.
        let mut patience = receiving.ring.place().capacities().1;
        loop {
            let front = self.wait_for_news(receiving, deadline)?;
            match front {
                Front::Nothing => continue,
                Front::Grown => self.grow(receiving)?,
                Front::Final => return Err(RecvRefusal::Disconnected),
                Front::Whole(length, _) | Front::First(length, _) if length > max => {
                    // Not one that was taken back.
                    if self.settle(receiving)? == front {
                        return Err(RecvRefusal::TooLong(length));
                    }
                }
                // One that has begun for somebody who would have taken more.
                Front::Last(length) if receiving.torso.len() + length > max => {
                    return Err(RecvRefusal::TooLong(receiving.torso.len() + length));
                }
                Front::Whole(length, descriptors) => {
                    reserve(to, length)?;
                    // Before it is taken: what does not arrive with it is missed, and what finds no room
                    // comes later.
                    let descriptors = self.take_descriptors(receiving, descriptors, deadline)?;
                    receiving.ring.take_into(front, to);
                    self.taken(receiving);
                    return Ok(descriptors);
                }
                Front::First(length, descriptors) => {
                    // The caller's memory, if it has some to spare: fresh memory costs more than the copy.
                    let mut torso = if to.is_empty() { core::mem::take(to) } else { Vec::new() };
                    reserve(&mut torso, length.min(TRUSTED))?;
                    receiving.torso = torso;
                    receiving.descriptors = descriptors;
                    receiving.take_part(front);
                }
                Front::Next(length) => {
                    reserve(&mut receiving.torso, length)?;
                    receiving.take_part(front);
                }
                Front::Abort => self.forget(receiving)?,
                Front::Last(length) => {
                    reserve(&mut receiving.torso, length)?;
                    if !to.is_empty() {
                        reserve(to, receiving.torso.len() + length)?;
                    }
                    let descriptors = self.take_descriptors(receiving, receiving.descriptors, deadline)?;
                    receiving.take_part(front);
                    self.taken(receiving);
                    let torso = core::mem::take(&mut receiving.torso);
                    if to.is_empty() {
                        *to = torso;
                    } else {
                        to.extend_from_slice(&torso);
                    }
                    return Ok(descriptors);
                }
            }
            self.taken(receiving);
            #[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
            tests::AFTER_A_PART.with_borrow_mut(|happens| happens.iter_mut().for_each(|happens| happens()));
            match patience.checked_sub(front.length()) {
                Some(left) => patience = left,
                None if deadline.has_passed() => return Err(RecvRefusal::Empty),
                None => {}
            }
        }
    }

    /// The message that has begun does not go on.
    fn forget(&self, receiving: &mut Receiving) -> Result<(), RecvRefusal> {
        receiving.take_part(Front::Abort);
        receiving.torso = Vec::new();
        // The descriptors of what is not to come.
        if receiving.descriptors != 0 {
            receiving.serial += 1;
            let refused = self.door.refuse_descriptors(self.socket(), receiving.serial);
            refused.map_err(RecvRefusal::Io)?;
        }
        Ok(())
    }

    /// What is in front, for one who only asks: sees to growth, and forgets what was taken back. A message of
    /// which a part is in front stays there: how much of it is wanted is for who receives it to say.
    #[cold]
    pub(crate) fn settle(&self, receiving: &mut Receiving) -> Result<Front, RecvRefusal> {
        // As many as the ring has room for: a peer may take back without end.
        for _ in 0..receiving.ring.place().capacities().1 / 16 {
            let front = receiving.ring.front()?;
            match front {
                Front::Grown => self.grow(receiving)?,
                Front::First(..) | Front::Next(_) | Front::Abort => {
                    let allocate = |place: &Place| self.allocate_more(1 - self.side, place).is_ok();
                    if !receiving.ring.is_taken_back(allocate) {
                        break;
                    }
                    self.skip(receiving)?;
                }
                _ => break,
            }
            self.taken(receiving);
        }
        Ok(receiving.ring.front()?)
    }

    /// Takes the message in front, which was taken back.
    fn skip(&self, receiving: &mut Receiving) -> Result<(), RecvRefusal> {
        loop {
            match receiving.ring.front()? {
                Front::Grown => self.grow(receiving)?,
                front @ Front::First(_, descriptors) => {
                    receiving.descriptors = descriptors;
                    receiving.take_part(front);
                }
                front @ Front::Next(_) => receiving.take_part(front),
                Front::Abort => return self.forget(receiving),
                // What was seen behind it is not there any more.
                _ => return Err(RecvRefusal::Corrupt),
            }
        }
    }

    /// The ring has grown: sees to it that there is memory.
    #[cold]
    fn grow(&self, receiving: &mut Receiving) -> Result<(), RecvRefusal> {
        self.allocate_more(1 - self.side, receiving.ring.place()).map_err(RecvRefusal::Io)?;
        receiving.ring.grow();
        Ok(())
    }

    fn take_descriptors(
        &self,
        receiving: &mut Receiving,
        count: usize,
        deadline: Deadline,
    ) -> Result<Vec<OwnedFd>, RecvRefusal> {
        if count == 0 {
            return Ok(Vec::new());
        }
        // They were sent before the message was published.
        let fetched = self.door.fetch_descriptors(self.socket(), receiving.serial + 1, count, deadline);
        let descriptors = fetched.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => RecvRefusal::Empty,
            _ => RecvRefusal::Io(error),
        })?;
        receiving.serial += 1;
        if descriptors.len() == count && !self.door.is_flooded() {
            Ok(descriptors)
        } else {
            Err(RecvRefusal::Corrupt)
        }
    }

    fn wait_for_news(&self, receiving: &mut Receiving, deadline: Deadline) -> Result<Front, RecvRefusal> {
        let mut is_forgotten = false;
        loop {
            if self.is_closed() {
                return Err(RecvRefusal::Closed);
            }
            if receiving.is_broken {
                return Err(RecvRefusal::Corrupt);
            }
            let front = receiving.ring.front()?;
            if front != Front::Nothing {
                if is_forgotten {
                    futex::count_backstop_rescue();
                }
                return Ok(front);
            }
            if deadline != Deadline::PAST && self.look(receiving) {
                continue;
            }
            self.publish_head(receiving);
            if receiving.is_broken {
                return Err(RecvRefusal::Corrupt);
            }
            let mut is_prompt = false;
            if deadline != Deadline::PAST {
                if !core::mem::replace(&mut receiving.has_parked, true) {
                    self.door.park(RECEIVING);
                }
                receiving.ring.line().falls_asleep();
                is_prompt = barrier::heavy();
            }
            // Who does not sleep asks the socket now; who sleeps does so there, and comes back.
            let outlook = if deadline == Deadline::PAST {
                self.door.look(self.socket())
            } else {
                self.door.outlook(self.socket())
            };
            let outlook = outlook.map_err(RecvRefusal::Io)?;
            // What was published before the end is here.
            let front = receiving.ring.front()?;
            if front != Front::Nothing {
                if deadline != Deadline::PAST {
                    receiving.ring.line().is_awake();
                }
                return Ok(front);
            }
            if self.is_closed() {
                return Err(RecvRefusal::Closed);
            }
            if outlook.has_ended {
                return Err(RecvRefusal::Disconnected);
            }
            if outlook.lacks_room {
                return Err(RecvRefusal::NoRoom);
            }
            if deadline == Deadline::PAST {
                // A task may be asleep.
                return Err(RecvRefusal::Empty);
            }
            if deadline.has_passed() {
                receiving.ring.line().is_awake();
                return Err(RecvRefusal::Empty);
            }
            let until = if is_prompt { deadline } else { deadline.min(Deadline::after(SLICE)) };
            let is_awake = || !receiving.ring.line().is_asleep();
            is_forgotten = !self.door.wait(self.socket(), until, is_awake).map_err(RecvRefusal::Io)?;
            receiving.ring.line().is_awake();
        }
    }

    /// Waits until there is something to receive, or will never be: both are `true`. `false` after the
    /// deadline.
    pub(crate) fn poll(&self, deadline: Deadline) -> io::Result<bool> {
        let Some(mut receiving) = self.receiving.enter(deadline) else { return Ok(self.receiving.is_lost()) };
        let mut is_last = false;
        let news = loop {
            let waited = self.wait_for_news(&mut receiving, deadline);
            match waited.and_then(|_| self.settle(&mut receiving)) {
                // Once more: it may have been the end.
                Ok(Front::Nothing) if !is_last => is_last = deadline.has_passed(),
                Ok(Front::Nothing) => break Err(RecvRefusal::Empty),
                news => break news,
            }
        };
        if let Err(RecvRefusal::Corrupt) = news {
            self.break_off_receiving(&mut receiving);
        }
        self.leave_receiving(receiving);
        match news {
            Err(RecvRefusal::Empty) => Ok(false),
            Err(RecvRefusal::Io(error)) => Err(error),
            _ => Ok(true),
        }
    }

    /// Before somebody waits at the socket in ways of his own: whether there is something to receive, or will
    /// never be. If not, the next message makes the socket readable.
    pub(crate) fn prepares_wait(&self, deadline: Deadline) -> io::Result<Asked> {
        let Some(mut receiving) = self.receiving.enter(deadline) else {
            return Ok(if self.receiving.is_lost() { Asked::Ready } else { Asked::Busy });
        };
        let outlook = self.door.look(self.socket())?;
        if self.is_closed() || receiving.is_broken || outlook.has_ended || outlook.lacks_room {
            return Ok(Asked::Ready);
        }
        // What comes meanwhile may be taken back, too, but not without end.
        for _ in 0..4 {
            let front = self.settle(&mut receiving);
            if matches!(front, Err(RecvRefusal::Corrupt)) {
                self.break_off_receiving(&mut receiving);
            }
            self.publish_head(&mut receiving);
            if receiving.is_broken || !matches!(front, Ok(Front::Nothing)) {
                break;
            }
            receiving.ring.line().falls_asleep();
            let prompt = barrier::heavy();
            if receiving.ring.front() == Ok(Front::Nothing) {
                return Ok(Asked::Waits { prompt });
            }
        }
        Ok(Asked::Ready)
    }
}

/// Has room for so many bytes more. A message for which there is no memory stays where it is.
fn reserve(to: &mut Vec<u8>, bytes: usize) -> Result<(), RecvRefusal> {
    // Twice as much as there is may be too much.
    let reserved = to.try_reserve(bytes).or_else(|_| to.try_reserve_exact(bytes));
    reserved.map_err(|_| RecvRefusal::Io(io::ErrorKind::OutOfMemory.into()))
}

impl Receiving {
    fn take_part(&mut self, front: Front) {
        self.ring.take_into(front, &mut self.torso);
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use crate::end::{CAPACITY, shape};
    use crate::{Bytes, Connection, RecvError, SendError, pipe_with_capacity};
    use polyproc_testing::watchdog;
    use std::cell::RefCell;
    use std::time::Duration;

    type Bytewise = Connection<Vec<u8>, Vec<u8>, Bytes>;

    thread_local! {
        /// Happens in this thread whenever it has received a part of a message, or that there is none.
        pub(super) static AFTER_A_PART: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    /// Each time that it looks, something has come.
    #[test]
    fn parts_that_never_become_a_message_keep_nobody_past_its_deadline() {
        let _watchdog = watchdog();
        let (here, there): (Bytewise, Bytewise) = pipe_with_capacity(4096).unwrap();
        let mut is_begun = false;
        let mut goes_on = move || {
            let mut sending = there.end.sending.enter(Deadline::PAST).unwrap();
            if is_begun {
                sending.ring.write_abort().unwrap();
            } else {
                assert_eq!(sending.ring.finds_room(520), Ok(true));
                sending.ring.write_first(9_000, &[1; 512], 0).unwrap();
            }
            is_begun = !is_begun;
        };
        goes_on();
        AFTER_A_PART.set(Some(Box::new(goes_on)));
        for _ in 0..3 {
            assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
            assert!(matches!(here.recv_timeout(Duration::from_millis(1)), Err(RecvError::Empty)));
        }
        AFTER_A_PART.set(None);
    }

    #[test]
    fn of_a_message_that_was_taken_back_nothing_is_kept() {
        let (here, there): (Bytewise, Bytewise) = pipe_with_capacity(4096).unwrap();
        let length = 9_000;
        assert!(matches!(there.try_send(vec![1; length]), Err(SendError::Full(_))));
        assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
        let receiving = here.end.receiving.enter(Deadline::PAST).unwrap();
        assert_eq!((receiving.torso.capacity(), receiving.descriptors), (0, 0));
    }

    /// Right behind the sender, each line would cross several times. But an answer is not to be late.
    #[test]
    fn a_sender_of_many_records_is_left_alone_for_longer_unless_they_are_an_answer() {
        let size = *CAPACITY.end() as u64;
        let (here, there) = End::pair(&shape(size, 0).unwrap(), size).unwrap();
        let mut receiving = there.receiving.enter(Deadline::NEVER).unwrap();
        let mut pause_after = |records: u64| {
            for _ in 0..records {
                here.send(&[1; 56], Deadline::NEVER, false).unwrap();
            }
            while receiving.ring.front() == Ok(Front::Whole(56, 0)) {
                receiving.ring.take_into(Front::Whole(56, 0), &mut Vec::new());
            }
            here.send(&[1; 56], Deadline::NEVER, false).unwrap();
            receiving.pause = STREAM_PAUSE;
            assert!(there.look(&mut receiving));
            receiving.pause
        };
        assert_eq!(pause_after(0), PAUSE);
        // And the one that was news.
        assert_eq!(pause_after(6), PAUSE);
        assert_eq!(pause_after(15), 2 * PAUSE);
        assert_eq!(pause_after(300), STREAM_PAUSE);
        there.send(&[2; 56], Deadline::NEVER, false).unwrap();
        assert_eq!(pause_after(300), PAUSE, "it was asked for");
        assert_eq!(pause_after(300), STREAM_PAUSE);
    }
}
