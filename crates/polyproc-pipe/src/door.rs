//! [`Door`]: the threads of one process that wait at one socket.
//!
//! The bell does not say for whom it rings: a message, or room. If two threads waited at the socket, one
//! could take the bell of the other. So one waits at the socket, and the others wait for that one: when it
//! has taken anything from the socket, all look again at what they wait for.
//!
//! Whoever passes by without waiting leaves the bell to the one who waits. Tasks of a runtime, and threads
//! that wait for several things, which wait for the socket elsewhere, leave their wakers here: what they wait
//! for may be gone from the socket before they hear of it. They are woken by whoever takes anything from the
//! socket, and by whoever leaves a gate and has waited inside.
//!
//! Descriptors for which this process has no room stay on the socket, and whatever is behind them: who
//! receives is told so, and who waits for room in the other direction looks every millisecond.

use crate::end::SLICE;
use crate::socket::{self, InFront, Packet};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// The most descriptors that are kept for messages that have not come yet.
pub(crate) const KEPT: usize = if cfg!(test) { 1 << 8 } else { 1 << 17 };
/// The most packets that are taken at a time: a peer that rings without end keeps nobody past a deadline.
const PACKETS: usize = 64;
/// So many times as many may lie before a message's descriptors, all of them bells: more than a socket has
/// room for.
const LOOKS: usize = 16;
/// How long somebody who is awake may take to fetch the packets that lie before a message's descriptors.
const ATTENDANCE: Duration = Duration::from_secs(1);

/// A direction, as [`park`](Door::park) takes it.
pub(crate) const SENDING: usize = 0;
/// The other one.
pub(crate) const RECEIVING: usize = 1;

/// What the socket has told.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outlook {
    /// The other end is gone.
    pub(crate) has_ended: bool,
    /// In front are descriptors for which this process has no room.
    pub(crate) lacks_room: bool,
    /// The one who looked has taken all that was there.
    is_drained: bool,
}

#[derive(Default)]
struct State {
    /// Whether somebody waits at the socket.
    is_attended: bool,
    /// Whether that one takes what comes without a look at it before: only as long as no descriptors are
    /// announced.
    takes_blindly: bool,
    /// Whether somebody waits for that one.
    has_others: bool,
    /// How many threads have said in the gate of this direction that they are about to wait, and not that
    /// they have left it. One may be inside before the one before it says so.
    parked: [u32; 2],
    /// Those that wait for the socket by themselves, each with its own number.
    tasks: Vec<(usize, Waker)>,
    outlook: Outlook,
    /// A notice came, and what it announces did not yet.
    has_notice: bool,
    /// The serial number of the last message whose descriptors were taken, or are not wanted any more.
    done: u64,
    inbox: VecDeque<(u64, OwnedFd)>,
    /// Descriptors came that nobody has announced, more than are kept.
    is_flooded: bool,
}

/// Where the threads of this process wait for one connection's socket.
#[derive(Default)]
pub(crate) struct Door {
    state: Mutex<State>,
    turn: Condvar,
    /// Not 0 in a child that was forked while another thread had the state. Then nobody is in a gate of this
    /// end, ever.
    is_lost: AtomicU32,
}

impl Door {
    /// One that goes on where another process has left it: with the messages up to this one `done`.
    pub(crate) fn new(done: u64, has_notice: bool) -> Door {
        let state = State { done, has_notice, ..State::default() };
        Door { state: Mutex::new(state), turn: Condvar::new(), is_lost: AtomicU32::new(0) }
    }

    /// In a child that was forked just now, by its one thread: forgets those who wait, whom it does not have.
    /// Whether the door can be used.
    pub(crate) fn begin_anew(&self) -> bool {
        let Ok(mut state) = self.state.try_lock() else {
            self.is_lost.store(1, Ordering::Relaxed);
            return false;
        };
        state.is_attended = false;
        state.takes_blindly = false;
        state.has_others = false;
        state.parked = [0; 2];
        // Not dropped: they are a runtime's whose threads are not here.
        core::mem::forget(core::mem::take(&mut state.tasks));
        true
    }

    /// By one who is in no gate.
    fn state_if_any(&self) -> Option<MutexGuard<'_, State>> {
        // Relaxed: it was stored when there was one thread.
        (self.is_lost.load(Ordering::Relaxed) == 0).then(|| self.state())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everybody here from going on.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop {
        self.state()
    }

    /// Waits for the bell, unless `ready`, or until the deadline. `Ok(false)` if nothing came, only the
    /// backstop: who finds news then was forgotten.
    pub(crate) fn wait(
        &self,
        socket: BorrowedFd<'_>,
        deadline: Deadline,
        ready: impl Fn() -> bool,
    ) -> io::Result<bool> {
        let mut state = self.state();
        if ready() || state.outlook.has_ended {
            return Ok(true);
        }
        if deadline.has_passed() {
            return Ok(true);
        }
        if state.is_attended {
            state.has_others = true;
            let _state = match deadline.remaining() {
                Some(left) => {
                    let waited = self.turn.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.turn.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            return Ok(true);
        }
        state.is_attended = true;
        let is_blind = deadline == Deadline::NEVER && !state.has_notice;
        state.takes_blindly = is_blind;
        drop(state);
        let came = if is_blind {
            socket::receive(socket, true).map(Some)
        } else {
            // The backstop is for a thread that closes the end meanwhile.
            socket::wait_readable(socket, deadline.or_backstop()).map(|_| None)
        };
        let mut state = self.state();
        let packet = came.and_then(|packet| packet.map_or_else(|| state.receive(socket), Ok));
        let is_forgotten = is_blind && matches!(packet, Ok(Packet::Nothing));
        let result = packet.map(|packet| state.take(packet, socket));
        if state.outlook.lacks_room {
            drop(state);
            socket::wait_for_the_end(socket, deadline.min(Deadline::after(SLICE)));
            state = self.state();
        }
        state.is_attended = false;
        state.takes_blindly = false;
        self.let_others_look(state);
        result.map(|()| !is_forgotten)
    }

    /// Takes what has come, without waiting.
    pub(crate) fn look(&self, socket: BorrowedFd<'_>) -> io::Result<Outlook> {
        let mut state = self.state();
        let has_taken = state.take_packets(socket)?;
        let outlook = state.outlook;
        if has_taken {
            self.let_others_look(state);
        }
        Ok(outlook)
    }

    /// What was seen last; what may be otherwise by now is looked at again.
    pub(crate) fn outlook(&self, socket: BorrowedFd<'_>) -> io::Result<Outlook> {
        let outlook = self.state().outlook;
        if outlook.lacks_room { self.look(socket) } else { Ok(outlook) }
    }

    /// After something was taken from the socket that others may wait for, or the end was closed.
    fn let_others_look(&self, mut state: MutexGuard<'_, State>) {
        let has_others = core::mem::take(&mut state.has_others);
        let tasks = core::mem::take(&mut state.tasks);
        drop(state);
        if has_others {
            self.turn.notify_all();
        }
        tasks.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// A thread is about to wait inside a gate: tasks that find it closed are woken when the thread has left
    /// it. Said once before it [leaves](Door::unpark).
    pub(crate) fn park(&self, direction: usize) {
        self.state().parked[direction] += 1;
    }

    /// It has left the gate, and nobody is announced as asleep by now.
    pub(crate) fn unpark(&self, direction: usize) {
        let mut state = self.state();
        // It is 0 in a child that was forked by a signal handler of the thread that waits.
        state.parked[direction] = state.parked[direction].saturating_sub(1);
        self.let_others_look(state);
    }

    /// Whether a thread that is inside the gate of this direction has said that it waits.
    pub(crate) fn is_parked(&self, direction: usize) -> bool {
        self.state_if_any().is_some_and(|state| state.parked[direction] != 0)
    }

    /// When the end was closed, or a message sent of which a part was under way: all are to look again.
    pub(crate) fn wake_all(&self) {
        if let Some(state) = self.state_if_any() {
            self.let_others_look(state);
        }
    }

    /// A task is to be woken, once, when anybody has taken anything from the socket. Instead of what it left
    /// under this number. Whether somebody waits at the socket, who will take what comes, and so wake it.
    pub(crate) fn enlist(&self, number: usize, waker: &Waker) -> bool {
        let Some(mut state) = self.state_if_any() else { return false };
        state.tasks.retain(|(of, _)| *of != number);
        state.tasks.push((number, waker.clone()));
        state.is_attended
    }

    /// The task waits no longer.
    pub(crate) fn strike(&self, number: usize) {
        if let Some(mut state) = self.state_if_any() {
            state.tasks.retain(|(of, _)| *of != number);
        }
    }

    /// Whether the other end was seen to be gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().outlook.has_ended
    }

    /// Whether more descriptors came than were announced.
    pub(crate) fn is_flooded(&self) -> bool {
        self.state().is_flooded
    }

    /// Whether a notice came, and what it announces did not yet.
    pub(crate) fn has_notice(&self) -> bool {
        self.state().has_notice
    }

    /// Whether somebody waits who will take what is in front on the socket.
    fn is_about_to_take(&self) -> bool {
        let state = self.state();
        state.is_attended && !state.outlook.lacks_room
    }

    /// So many descriptors of the message with this serial number, or as many as are there; those of earlier
    /// ones are closed. `EMFILE`, and nothing is lost, if there is no room for them; nor after the deadline,
    /// which is `TimedOut`.
    pub(crate) fn fetch_descriptors(
        &self,
        socket: BorrowedFd<'_>,
        serial: u64,
        count: usize,
        deadline: Deadline,
    ) -> io::Result<Vec<OwnedFd>> {
        // One who would not wait for a message waits a moment for what has come with it.
        let deadline = deadline.max(Deadline::after(SLICE));
        let patience = deadline.min(Deadline::after(ATTENDANCE));
        for _ in 0..LOOKS + count.div_ceil(socket::PACKET_DESCRIPTORS) {
            let mut outlook = self.look(socket)?;
            // One who waits is about to take the bell that lies before them.
            while !self.has_descriptors(serial, count) && self.is_about_to_take() && !patience.has_passed() {
                std::thread::yield_now();
                outlook = self.look(socket)?;
            }
            if outlook.is_drained {
                break;
            }
        }
        if !self.has_descriptors(serial, count) && self.state().outlook.lacks_room {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        if !self.has_descriptors(serial, count) && self.is_about_to_take() && deadline.has_passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut descriptors = self.take_descriptors(serial);
        // Those before them are nobody's.
        let stale = descriptors.len().saturating_sub(count);
        descriptors.drain(..stale);
        Ok(descriptors)
    }

    fn has_descriptors(&self, serial: u64, count: usize) -> bool {
        let state = self.state();
        state.is_flooded || state.inbox.iter().filter(|(of, _)| *of == serial).count() >= count
    }

    /// Closes the descriptors of the messages up to this one, which is not to come, also those that are still
    /// on the socket.
    pub(crate) fn refuse_descriptors(&self, socket: BorrowedFd<'_>, serial: u64) -> io::Result<()> {
        drop(self.take_descriptors(serial));
        self.look(socket).map(drop)
    }

    /// Those of the message with this serial number; they and all of earlier ones are done with.
    fn take_descriptors(&self, serial: u64) -> Vec<OwnedFd> {
        let mut state = self.state();
        state.done = serial;
        let mut taken = Vec::new();
        while state.inbox.front().is_some_and(|(of, _)| *of <= serial) {
            if let Some((of, descriptor)) = state.inbox.pop_front()
                && of == serial
            {
                taken.push(descriptor);
            }
        }
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().inbox.is_empty()
    }
}

impl State {
    /// Whether there was anything that others may wait for.
    fn take_packets(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut has_taken = false;
        self.outlook.is_drained = false;
        for _ in 0..PACKETS {
            // The one who waits sleeps in the kernel until it has taken something itself: a bell is left to
            // it, also one that comes in this moment.
            if self.is_attended {
                match socket::in_front(socket) {
                    InFront::Byte => break,
                    InFront::Courier if self.takes_blindly => break,
                    InFront::Courier | InFront::End => {}
                }
            }
            let packet = self.receive(socket)?;
            let is_last = matches!(packet, Packet::Nothing | Packet::End | Packet::NoRoom);
            has_taken |= !matches!(packet, Packet::Nothing | Packet::NoRoom);
            self.take(packet, socket);
            if is_last {
                break;
            }
        }
        Ok(has_taken)
    }

    /// The next packet, if there is one.
    fn receive(&self, socket: BorrowedFd<'_>) -> io::Result<Packet> {
        if self.has_notice {
            socket::receive_noticed(socket, self.done)
        } else {
            socket::receive(socket, false)
        }
    }

    fn take(&mut self, packet: Packet, socket: BorrowedFd<'_>) {
        self.outlook.lacks_room = matches!(packet, Packet::NoRoom);
        self.outlook.is_drained = matches!(packet, Packet::Nothing);
        match packet {
            Packet::Nothing | Packet::Interrupted | Packet::Bell => {}
            Packet::End => self.outlook.has_ended = true,
            Packet::Notice => self.has_notice = true,
            // The end is behind them.
            Packet::NoRoom => self.outlook.has_ended |= socket::is_gone(socket),
            Packet::Descriptors(serial, descriptors) => {
                self.has_notice = false;
                if serial <= self.done {
                    return;
                }
                self.inbox.extend(descriptors.into_iter().map(|descriptor| (serial, descriptor)));
                if self.inbox.len() > KEPT {
                    self.inbox.clear();
                    self.is_flooded = true;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "a child that hangs is to end")]
mod tests {
    use super::*;
    use crate::{RecvError, SendError, pipe, wait};
    use polyproc_testing::{Child, watchdog};
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::sync::mpsc;
    use std::time::Instant;

    impl Door {
        /// Somebody waits, and the notice has woken it: which it has taken, and not entered yet.
        fn is_woken_by(&self, notice: &Packet, is_blind: bool) {
            assert!(matches!(notice, Packet::Notice));
            let mut state = self.state();
            (state.is_attended, state.takes_blindly) = (true, is_blind);
        }

        /// It enters it, and goes.
        fn enters(&self, notice: Packet, socket: BorrowedFd<'_>) {
            let mut state = self.state();
            state.take(notice, socket);
            (state.is_attended, state.takes_blindly) = (false, false);
        }
    }

    /// The process may have no room for them, and who does not know that they are announced loses them then.
    #[test]
    fn descriptors_are_left_to_who_has_taken_their_notice_and_not_said_so() {
        let (here, there) = pipe::<u8, u8>().unwrap();
        let (door, socket) = (&here.end.door, here.end.socket());
        let null = File::open("/dev/null").unwrap();
        socket::send_descriptors(there.end.socket(), 1, &[null.as_fd()]).unwrap();
        let notice = socket::receive(socket, false).unwrap();
        door.is_woken_by(&notice, true);
        assert!(!door.look(socket).unwrap().is_drained && door.is_empty());
        door.enters(notice, socket);
        assert!(door.has_notice());
        assert_eq!(door.fetch_descriptors(socket, 1, 1, Deadline::NEVER).unwrap().len(), 1);
    }

    /// Who knows of the notice need not wait for who waits, which may take its time.
    #[test]
    fn announced_descriptors_are_taken_at_once_although_somebody_waits() {
        let (here, there) = pipe::<u8, u8>().unwrap();
        let (door, socket) = (&here.end.door, here.end.socket());
        let null = File::open("/dev/null").unwrap();
        socket::send_descriptors(there.end.socket(), 1, &[null.as_fd()]).unwrap();
        let notice = socket::receive(socket, false).unwrap();
        door.state().take(notice, socket);
        door.state().is_attended = true;
        let begin = Instant::now();
        assert_eq!(door.fetch_descriptors(socket, 1, 1, Deadline::NEVER).unwrap().len(), 1);
        assert!(begin.elapsed() < ATTENDANCE, "it has waited for one who waits");
        // What was announced is here, and nobody has to look before he takes.
        assert!(!door.has_notice());
    }

    /// Of an attempt to send the message, for instance, of which more come when it has come.
    #[test]
    fn descriptors_of_what_is_done_with_are_not_kept() {
        let (here, there) = pipe::<u8, u8>().unwrap();
        let (door, socket) = (&here.end.door, here.end.socket());
        let null = File::open("/dev/null").unwrap();
        let send = |serial| {
            socket::send_descriptors(there.end.socket(), serial, &[null.as_fd()]).unwrap();
        };
        (1..4).for_each(send);
        assert_eq!(door.fetch_descriptors(socket, 2, 1, Deadline::NEVER).unwrap().len(), 1);
        assert!(!door.is_empty(), "what is to come is");
        assert_eq!(door.fetch_descriptors(socket, 3, 1, Deadline::NEVER).unwrap().len(), 1);
        (0..4).for_each(send);
        assert!(door.look(socket).unwrap().is_drained && door.is_empty());
        door.refuse_descriptors(socket, 4).unwrap();
        send(4);
        assert!(door.look(socket).unwrap().is_drained && door.is_empty());
    }

    /// It has none of the threads that have waited, also if one had just left and not said so.
    #[test]
    fn after_a_fork_nobody_is_said_to_wait() {
        let (here, _there) = pipe::<u8, u8>().unwrap();
        let door = &here.end.door;
        for direction in [SENDING, RECEIVING] {
            door.park(direction);
            assert!(door.is_parked(direction));
        }
        door.state().is_attended = true;
        assert!(door.begin_anew());
        assert!(!door.is_parked(SENDING) && !door.is_parked(RECEIVING) && !door.is_about_to_take());
        door.unpark(SENDING);
        assert!(!door.is_parked(SENDING));
    }

    /// What another thread is about to change is not the child's to use.
    #[test]
    fn a_child_that_was_forked_while_another_thread_was_at_the_door_does_not_wait_for_it() {
        let _dog = watchdog();
        let (here, there) = pipe::<u8, u8>().unwrap();
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let door = &here.end.door;
            scope.spawn(move || {
                let _state = door.state();
                sender.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            });
            receiver.recv().unwrap();
            let child = Child::run(|| {
                // SAFETY: takes a number. Nobody handles the signal, so it ends a child that waits for ever.
                unsafe { libc::alarm(10) };
                assert!(matches!(here.recv(), Err(RecvError::Corrupt)));
                assert!(matches!(here.send(1), Err(SendError::Corrupt(1))));
                assert_eq!(wait(&[&here], None).unwrap(), [0]);
                here.close().unwrap();
            });
            child.join();
        });
        there.send(2).unwrap();
        assert_eq!(here.recv().unwrap(), 2);
    }
}
