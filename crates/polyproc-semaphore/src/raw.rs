//! The semaphore's protocol.
//!
//! # Cells
//!
//! Each permit that can be held has a *cell*: a robust lock's word and links, so that the kernel sees to a dead holder.
//!
//! | word | meaning |
//! |---|---|
//! | `FREE` (0) | a permit lies here |
//! | tid | a thread holds it |
//! | tid + `WAITERS` | the same, and somebody may want to hear of its end |
//! | `OWNER_DIED`, with `WAITERS` or not | its holder died: a permit lies here |
//! | `EMPTY` | no permit |
//! | `GONE` | no permit: its holder forgot it, and the room for another has not gone back to `supply` yet |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | `FREE` | tid, tid + `WAITERS` | who acquires | compare-and-swap |
//! | tid | tid + `WAITERS` | who is about to sleep; the holder that finds the door not quiet | compare-and-swap; or |
//! | tid … | `FREE` | who releases | swap |
//! | tid … | `GONE` | who forgets | swap |
//! | tid … | `OWNER_DIED` … | the kernel, `WAITERS` kept | compare-and-swap |
//! | `OWNER_DIED` … | `FREE` | who wants a permit | compare-and-swap |
//! | `EMPTY` | `FREE` | who has the gate | compare-and-swap, see *moves* |
//! | `GONE` | `EMPTY` | who has the gate | compare-and-swap, see *moves* |
//!
//! So taking and giving back are one step each, and there is no instruction at which a permit is in two places or in none.
//!
//! # The door and the gate
//!
//! Who waits sleeps on the *gate*, the *door* and the known cells together. The gate is where one is woken. The door is a
//! number, and says whether anybody may be asleep:
//!
//! | door | to | by |
//! |---|---|---|
//! | quiet, told | asleep, next number | who is about to sleep; it looks at all cells after that, and marks those that are held |
//! | asleep, told | told, next number | who has news; it wakes one at the gate after that |
//! | told | quiet, same number | the same, if it woke nobody and nobody has come |
//!
//! News is: a release of a cell with `WAITERS`, more permits (`release`), the end of a turn at the gate while a permit is
//! there, and a permit left by one who has waited and got another.
//!
//! # Why nobody sleeps for ever
//!
//! While one sleeps, the door is not quiet, and all held cells have `WAITERS`: a sleeper announces itself at the door
//! first, and marks then; a holder takes its cell first, and looks at the door then; and of two such, one sees the other.
//! So each release tells. Whoever was about to sleep finds the number changed; if nobody was, somebody is woken, takes a
//! permit, and passes the news on if there is another. What if a thread dies around that?
//!
//! - **A holder**: the kernel puts `OWNER_DIED` in its place and wakes one who sleeps on the cell, since it has `WAITERS`.
//! - **Between release and wake**: the cell is pending, and `FREE`, so that the kernel wakes one who sleeps on it. If it is
//!   taken again by then, its next end tells.
//! - **Woken, and not yet at a cell**: the gate is pending, and zero, so that the kernel wakes another there. If a
//!   thread has the gate, it tells when it leaves.
//! - **At a cell, and not yet its holder**: as between release and wake. And who has waited takes a cell with
//!   `WAITERS` in the same step.
//! - **Woken for two**: a sleeper hangs on many words, and two wakes of different words may both hit it. It passes on.
//!
//! A killed sleeper, or one whose time is over, leaves the door as it was: that costs the next release one wake in vain,
//! which puts it right.
//!
//! The kernel takes 128 words to sleep on. Where more cells than that are known, a sleeper looks at all of them every
//! millisecond; and so it does on kernels before 5.16, which take one word; and while there are permits and every cell is
//! taken, because who forgets a permit then and dies tells nobody.
//!
//! What can strand others, until their backstop ([`polyproc_sys::deadline::BACKSTOP`]) ends, is two deaths:
//!
//! - of the thread that a wake was spent on, or that should have woken, and of the one that took the same cell meanwhile,
//!   between its compare-and-swap and its look at the door, some three instructions later;
//! - on kernels that pass a swallowed wake on only if the word is exactly zero: of the thread at the gate, and of the one
//!   that the kernel woke for it.
//!
//! # Supply
//!
//! Permits that nobody has held yet, in excess of the cells or released by `release`, are a number: `supply` has it, and
//! the number of those that may still be released, in one word. So a `release` is one compare-and-swap of all or nothing.
//!
//! A permit comes from there into a cell by a *move*, and so does the room that a forgotten permit leaves come back.
//! One thread at a time moves: the one that holds the gate, which is a robust lock too. It writes what it is about to do
//! into the `journal`, changes `supply`, whose parity says that it has, changes the cell, and empties the journal. Who
//! takes the gate from a dead thread finishes the move if the parity says that it counts, and drops it if not.
//! No move leads from `GONE` to `FREE`, in one: others could take the permit and forget it before the journal is empty.
//!
//! `unused` is how many of the last cells have never had a permit. Nobody looks at those, or sleeps on them; so
//! before one gets its first permit, all who sleep are woken to look again.

use crate::door::Door;
use crate::supply::{Refilled, Supply};
use core::fmt;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering, fence_after_rmw};
use polyproc_sys::backoff::Backoff;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, OWNER, OWNER_DIED, WAIT_ANY_MAX, WAITERS, Wait};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::{self, Current};

/// The word of a cell with a permit that nobody holds.
pub(crate) const FREE: u32 = 0;
/// The word of a cell without a permit. No thread has such an id.
pub(crate) const EMPTY: u32 = 1 << 28;
/// The word of a cell whose permit was forgotten. No thread has such an id.
pub(crate) const GONE: u32 = 1 << 29;

/// What a semaphore has in shared memory beside its cells. All zero has no supply and no room: the permits are those in
/// the cells.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Head {
    /// 0, or who moves. Where one is woken.
    pub(crate) gate: Futex,
    /// Whether anybody sleeps.
    pub(crate) door: Door,
    /// How many permits lie in no cell, and how many more may be released.
    pub(crate) supply: AtomicU64,
    /// The move that is under way.
    pub(crate) journal: AtomicU32,
    /// How many of the last cells have never had a permit.
    pub(crate) unused: AtomicU32,
    pub(crate) node: Node,
}

/// The place of a permit in shared memory. All zero has one that nobody holds.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Cell {
    /// See the table above.
    pub(crate) word: Futex,
    /// The process that holds the permit.
    holder: AtomicU32,
    /// Which of that process's handles gave it out.
    lender: AtomicU32,
    reserved: [AtomicU32; 3],
    node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    use core::mem::offset_of;
    use polyproc_sys::robust::NODE_OFFSET;
    assert!(offset_of!(Head, gate) == 0 && offset_of!(Head, node) == NODE_OFFSET);
    assert!(offset_of!(Cell, word) == 0 && offset_of!(Cell, node) == NODE_OFFSET);
    assert!(size_of::<Head>() == 64 && size_of::<Cell>() == 64 && align_of::<Cell>() == 64);
};

/// Why no permit was acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The deadline passed.
    TimedOut,
    /// The calling thread holds as many locks as the kernel releases for a dead thread.
    TooManyLocks,
}

/// A semaphore in shared memory: its head and its cells. A permit is the index of a cell.
///
/// This is the protocol alone: no handle, no guard. [`Semaphore`](crate::Semaphore) is what most programs want.
///
/// # Example
///
/// ```
/// use polyproc_semaphore::{Cell, Head, RawSemaphore, Refusal};
/// use polyproc_sys::deadline::Deadline;
///
/// static HEAD: Head = Head::new();
/// static CELLS: [Cell; 2] = [const { Cell::new() }; 2];
/// let semaphore = RawSemaphore::new(&HEAD, &CELLS);
///
/// // SAFETY: statics stay where they are.
/// let first = unsafe { semaphore.acquire_until(0, Deadline::NEVER) }.unwrap();
/// // SAFETY: as above.
/// let second = unsafe { semaphore.acquire_until(0, Deadline::NEVER) }.unwrap();
/// // SAFETY: as above.
/// let third = unsafe { semaphore.acquire_until(0, Deadline::PAST) };
/// assert_eq!((first, second, third), (0, 1, Err(Refusal::TimedOut)));
///
/// // SAFETY: acquired above, by this thread.
/// unsafe { semaphore.put_back(first) };
/// // SAFETY: as above.
/// unsafe { semaphore.forget(second) };
/// assert_eq!((semaphore.available(), semaphore.room()), (1, 1));
/// semaphore.release(1).unwrap();
/// assert!(semaphore.release(1).is_err());
/// ```
#[derive(Clone, Copy)]
pub struct RawSemaphore<'a> {
    pub(crate) head: &'a Head,
    pub(crate) cells: &'a [Cell],
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
impl Head {
    /// All zero.
    pub const fn new() -> Head {
        Head {
            gate: Futex::new(0),
            door: Door::new(),
            supply: AtomicU64::new(0),
            journal: AtomicU32::new(0),
            unused: AtomicU32::new(0),
            node: Node::new(),
        }
    }
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
impl Cell {
    /// All zero: a permit that nobody holds.
    pub const fn new() -> Cell {
        Cell {
            word: Futex::new(FREE),
            holder: AtomicU32::new(0),
            lender: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 3],
            node: Node::new(),
        }
    }
}

impl Cell {
    /// Notes which process has the permit, and by which of its handles.
    #[inline(always)]
    pub(crate) fn lend(&self, process: u32, lender: u32) {
        // Relaxed, also below: for people who look, and for the handle's own end.
        self.lender.store(lender, Ordering::Relaxed);
        self.holder.store(process, Ordering::Relaxed);
    }

    /// The process that holds the permit.
    pub(crate) fn holder(&self) -> Option<u32> {
        let held = is_held(self.word.load(Ordering::Relaxed));
        Some(self.holder.load(Ordering::Relaxed)).filter(|process| held && *process != 0)
    }

    /// Whether the permit is held, through this handle of this process.
    pub(crate) fn is_lent_by(&self, process: u32, lender: u32) -> bool {
        self.holder() == Some(process) && self.lender.load(Ordering::Relaxed) == lender
    }
}

/// Whether it is the word of a cell that a thread holds.
#[inline(always)]
fn is_held(word: u32) -> bool {
    word & OWNER != 0 && word & (EMPTY | GONE) == 0
}

impl<'a> RawSemaphore<'a> {
    /// A semaphore with this head and these cells, which are to be the same in all processes.
    ///
    /// # Panics
    ///
    /// If there are more than 65,536 cells.
    #[inline(always)]
    pub fn new(head: &'a Head, cells: &'a [Cell]) -> RawSemaphore<'a> {
        assert!(cells.len() <= crate::MAX_HOLDERS as usize);
        RawSemaphore { head, cells }
    }

    /// Sets it up with so many permits, of so many that there may be. Before anybody else knows of it.
    ///
    /// # Panics
    ///
    /// If `permits` is more than `most`, or `most` more than [`MAX_PERMITS`](crate::MAX_PERMITS).
    pub fn set_up(self, permits: u32, most: u32) {
        assert!(permits <= most && most <= crate::MAX_PERMITS);
        let filled = self.cells.len().min(permits as usize);
        for cell in &self.cells[filled..] {
            cell.word.store(EMPTY, Ordering::Relaxed);
        }
        self.head.unused.store((self.cells.len() - filled) as u32, Ordering::Relaxed);
        self.head
            .supply
            .store(Supply::new(most - permits, permits - filled as u32).bits(), Ordering::Release);
    }

    /// Acquires a permit, waiting for it until the deadline, and returns the index of its cell. Looks at the cell `start`
    /// first.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    ///
    /// # Safety
    ///
    /// Head and cells stay mapped, at their addresses, until the permit is put back or forgotten, or the calling thread has
    /// ended: a thread's permits form a list by address.
    #[inline(always)]
    pub unsafe fn acquire_until(self, start: u32, deadline: Deadline) -> Result<u32, Refusal> {
        let current = thread::current();
        if current.holds_none()
            && let Some(cell) = self.cells.get(start as usize)
        {
            current.begin(&cell.word, &cell.node);
            // SeqCst: acquires what the last holder released with `swap`, and is ordered before the look at the door.
            let free = cell.word.compare_exchange(FREE, current.tid(), Ordering::SeqCst, Ordering::Relaxed);
            if free.is_ok() {
                self.look_at_door(cell);
                // SAFETY: taken just now, as the thread's only lock; the caller keeps the cell mapped.
                unsafe { current.link_only(&cell.word, &cell.node) };
                return Ok(start);
            }
        }
        // SAFETY: the caller's.
        unsafe { self.acquire_slowly(current, start, deadline) }
    }

    /// There was no permit at first sight, or this thread holds others.
    ///
    /// # Safety
    ///
    /// As for [`acquire_until`](RawSemaphore::acquire_until).
    #[cold]
    #[inline(never)]
    unsafe fn acquire_slowly(self, current: Current, start: u32, deadline: Deadline) -> Result<u32, Refusal> {
        if !current.has_room() {
            current.end();
            return Err(Refusal::TooManyLocks);
        }
        match self.wait_for_one(current, start as usize, deadline) {
            Some(index) => {
                let cell = &self.cells[index];
                self.look_at_door(cell);
                // SAFETY: taken just now; the caller keeps the cell mapped.
                unsafe { current.link(&cell.word, &cell.node) };
                self.pass_on();
                Ok(index as u32)
            }
            None => {
                current.end();
                Err(Refusal::TimedOut)
            }
        }
    }

    /// Puts a permit back, and wakes one who waits for it. Never blocks.
    ///
    /// # Safety
    ///
    /// The calling thread holds it, in this process: not a parent before a `fork`.
    #[inline(always)]
    pub unsafe fn put_back(self, index: u32) {
        let cell = &self.cells[index as usize];
        // SAFETY: it has acquired, which registered it.
        let current = unsafe { thread::registered() };
        if current.holds_only(&cell.word, &cell.node) {
            // SAFETY: this thread linked it when it took the permit, and holds no other.
            unsafe { current.unlink_only(&cell.word, &cell.node) };
            self.vacate(current, cell);
        } else {
            // SAFETY: the caller's.
            unsafe { self.put_back_among_others(current, cell) };
        }
    }

    /// The thread holds other permits or locks too, or has worked on others since.
    ///
    /// # Safety
    ///
    /// As for [`put_back`](RawSemaphore::put_back).
    #[cold]
    #[inline(never)]
    unsafe fn put_back_among_others(self, current: Current, cell: &Cell) {
        current.begin(&cell.word, &cell.node);
        // SAFETY: this thread linked it when it took the permit.
        unsafe { current.unlink(&cell.word, &cell.node) };
        self.vacate(current, cell);
    }

    /// The end of a release.
    #[inline(always)]
    fn vacate(self, current: Current, cell: &Cell) {
        cell.holder.store(0, Ordering::Relaxed);
        // Release: pairs with the compare-and-swap of the next holder. First release, then wake.
        if cell.word.swap(FREE, Ordering::Release) & WAITERS != 0 {
            return self.tell_one(current);
        }
        current.end();
    }

    #[cold]
    #[inline(never)]
    fn tell_one(self, current: Current) {
        self.head.door.tell(&self.head.gate, 1);
        current.end();
    }

    /// Does away with a permit: there is room for the release of another. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`put_back`](RawSemaphore::put_back).
    pub unsafe fn forget(self, index: u32) {
        let cell = &self.cells[index as usize];
        // SAFETY: it has acquired, which registered it.
        let current = unsafe { thread::registered() };
        current.begin(&cell.word, &cell.node);
        // SAFETY: this thread linked it when it took the permit.
        unsafe { current.unlink(&cell.word, &cell.node) };
        cell.holder.store(0, Ordering::Relaxed);
        // Release: pairs with the move that fills the cell again.
        let word = cell.word.swap(GONE, Ordering::Release);
        if word & WAITERS != 0 {
            // No permit, but a cell, which may have been what was missing.
            self.pass_on();
        }
        current.end();
    }

    /// How many cells have ever had a permit.
    pub(crate) fn known(self) -> usize {
        // Relaxed: who must not miss a cell has looked at the door before. A peer may have written anything.
        self.cells.len().saturating_sub(self.head.unused.load(Ordering::Relaxed) as usize)
    }

    /// The processes that hold permits, by id, one for each permit.
    pub fn holders(self) -> impl Iterator<Item = u32> + 'a {
        self.cells[..self.known()].iter().filter_map(Cell::holder)
    }

    /// Takes a permit, sooner or later, and returns its index; not linked yet. `None` when the deadline has passed.
    fn wait_for_one(self, current: Current, start: usize, deadline: Deadline) -> Option<usize> {
        let mut backoff = Backoff::new();
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        loop {
            // While asleep too: see the page above on who dies with a wake in its hands.
            current.begin(&self.head.gate, &self.head.node);
            if let Some(index) = self.take_one(current, start) {
                if rescued {
                    futex::count_backstop_rescue();
                }
                return Some(index);
            }
            let refilled = self.refill(current);
            if refilled == Refilled::Yes {
                continue;
            }
            // Somebody at the gate is gone in a moment; who does not want to wait waits that long, if not for ever.
            if expired && !(refilled == Refilled::Busy && backoff.pause()) {
                return None;
            }
            // Whoever finds that others sleep already does not try to be cleverer than they.
            if expired || (self.head.door.is_quiet() && backoff.pause()) {
                continue;
            }
            let rest = self.sleep(deadline);
            expired = rest == Rest::Expired;
            rescued = rest == Rest::Backstop;
            backoff.reset();
        }
    }

    /// Takes a permit out of a cell, if one lies there.
    fn take_one(self, current: Current, start: usize) -> Option<usize> {
        let known = self.known();
        let start = if start < known { start } else { 0 };
        (start..known).chain(0..start).find(|index| self.take(current, &self.cells[*index]))
    }

    /// Takes the permit out of a cell, if one lies there. Pending then is the cell; if not, the gate, as before.
    fn take(self, current: Current, cell: &Cell) -> bool {
        loop {
            let word = cell.word.load(Ordering::Relaxed);
            if word & OWNER_DIED != 0 {
                // `FREE` first: if this thread died with a word pending that is neither that nor its own, a wake that was
                // spent on it would be lost. SeqCst: acquires what the dead released, for who takes it next.
                let _ = cell.word.compare_exchange(word, FREE, Ordering::SeqCst, Ordering::Relaxed);
                continue;
            }
            if word != FREE {
                return false;
            }
            // If others sleep, the kernel is to wake one from the step on that takes it.
            let others = if self.head.door.is_quiet() { 0 } else { WAITERS };
            current.begin(&cell.word, &cell.node);
            // SeqCst: as in `acquire_until`.
            let taken = current.tid() | others;
            if cell.word.compare_exchange(FREE, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return true;
            }
            current.begin(&self.head.gate, &self.head.node);
        }
    }

    /// Right after a cell was taken: does anybody sleep who is to hear of its end?
    #[inline(always)]
    fn look_at_door(self, cell: &Cell) {
        // Pairs with the fence of `Door::announce`: either the sleeper sees this thread's id in the cell, or this thread
        // sees the door.
        fence_after_rmw();
        if !self.head.door.is_quiet() {
            mark(cell);
        }
    }

    /// Sleeps until there may be news.
    fn sleep(self, deadline: Deadline) -> Rest {
        let door = self.head.door.announce();
        let gate = self.head.gate.load(Ordering::Relaxed);
        let mut words = [(&self.head.gate, gate); WAIT_ANY_MAX];
        words[1] = door;
        let mut count = 2;
        let known = self.known();
        for cell in &self.cells[..known] {
            let Some(word) = watched(cell) else { return Rest::News };
            if let Some(entry) = words.get_mut(count) {
                *entry = (&cell.word, word);
                count += 1;
            }
        }
        // A dead thread at the gate is for who is awake, and so is a permit in no cell; but if somebody is moving it just
        // now, that one tells.
        if gate & OWNER_DIED != 0 || (gate == 0 && self.can_refill()) {
            return Rest::News;
        }
        let all = known + 2 == count && !self.is_stuck();
        match futex::wait_any(&words[..count], if all { deadline.or_backstop() } else { slice(deadline) }) {
            Wait::TimedOut if deadline.has_passed() => Rest::Expired,
            Wait::TimedOut if all => Rest::Backstop,
            _ => Rest::News,
        }
    }
}

/// How a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There may be news.
    News,
    /// The deadline has passed.
    Expired,
    /// The backstop ended it.
    Backstop,
}

/// Where not everything that counts can be slept on.
fn slice(deadline: Deadline) -> Deadline {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    return deadline;
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    deadline.min(Deadline::after(futex::WAIT_ANY_SLICE))
}

/// What a sleeper sleeps on of a cell: marked if it is held. `None` if a permit lies there.
fn watched(cell: &Cell) -> Option<u32> {
    let mut word = cell.word.load(Ordering::Relaxed);
    loop {
        if word == FREE || word & OWNER_DIED != 0 {
            return None;
        }
        if !is_held(word) || word & WAITERS != 0 {
            return Some(word);
        }
        // SeqCst: whoever takes the cell later sees the door that stands behind this mark.
        match cell.word.compare_exchange(word, word | WAITERS, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return Some(word | WAITERS),
            Err(other) => word = other,
        }
    }
}

/// As the holder: somebody may be asleep.
#[cold]
#[inline(never)]
fn mark(cell: &Cell) {
    cell.word.fetch_or(WAITERS, Ordering::Relaxed);
}

impl fmt::Debug for RawSemaphore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSemaphore")
            .field("available", &self.available())
            .field("room", &self.room())
            .field("cells", &self.cells.len())
            .field("holders", &self.holders().collect::<Vec<_>>())
            .finish()
    }
}
