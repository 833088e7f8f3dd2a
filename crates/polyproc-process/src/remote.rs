//! Functions that another process of the same program calls by name, any number of times: what a pool is made
//! of.
//!
//! For polyproc's own crates. A [`Process`](crate::Process) runs one function and ends; here a process that
//! runs already is told which function to call next.

#![allow(unsafe_code)]

use crate::entry::{assert_plain, conjure};
use crate::error::SpawnError;
use crate::image::{self, Place};
use crate::raw;
use serde::{Deserialize, Serialize};
use std::any::TypeId;
use std::hash::{DefaultHasher, Hash, Hasher};

pub use crate::panics::{Panic, catch_traced};

/// Says how a function of the type `F` is called: with what it finds in a context, and where its result goes.
pub trait Adapter<F> {
    /// What the process that calls has ready.
    type Context: 'static;

    /// Calls it.
    fn run(function: F, context: &mut Self::Context);
}

/// The name of a function, the same in all processes of this program.
///
/// Whoever sends one is trusted: it says which code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Remote {
    place: Place,
    /// Tells the types of contexts apart.
    context: u64,
}

/// What a [`Remote`] names is not in this program, or takes another context.
#[derive(Clone, Copy, Debug)]
pub struct NotHere;

impl Remote {
    /// The name of this function, called in this way. Refuses at compile time what is more than its type.
    ///
    /// # Errors
    ///
    /// It belongs to a shared library.
    pub fn new<A: Adapter<F>, F: Copy + 'static>(_: F) -> Result<Remote, SpawnError> {
        const { assert_plain::<F>() };
        let enter: fn(&mut A::Context) = enter::<A, F>;
        let place = image::place_of(enter as *const ()).ok_or(SpawnError::NotInProgram)?;
        Ok(Remote { place, context: tag::<A::Context>() })
    }

    /// Calls it.
    ///
    /// # Errors
    ///
    /// [`NotHere`]; nothing was called.
    pub fn call<C: 'static>(&self, context: &mut C) -> Result<(), NotHere> {
        let address = image::address_of(self.place).filter(|_| self.context == tag::<C>()).ok_or(NotHere)?;
        // SAFETY: a name is made by `new` alone, in a process of this program, whose build was just compared;
        // there it was the place of an `enter` with this type of context, or one with an equal tag, which a
        // hash of 64 bits makes unlikely enough. That its bytes came from such a process is what the sender
        // is trusted with.
        let enter = unsafe { core::mem::transmute::<*const (), fn(&mut C)>(address) };
        enter(context);
        Ok(())
    }
}

/// The same in all processes that run the same file.
fn tag<C: 'static>() -> u64 {
    let mut hasher = DefaultHasher::new();
    TypeId::of::<C>().hash(&mut hasher);
    hasher.finish()
}

fn enter<A: Adapter<F>, F: Copy + 'static>(context: &mut A::Context) {
    // SAFETY: this function is only reached by a name that `Remote::new` gave out to somebody who had such a
    // value; and its size is zero, which is checked there.
    let function = unsafe { conjure::<F>() };
    A::run(function, context);
}

/// Lets `SIGINT`, which a terminal sends to everybody, pass this process by.
pub fn shrug_off_interrupts() {
    raw::shrug_off_interrupts();
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Apply;

    impl<F: Fn(i32) -> i32> Adapter<F> for Apply {
        type Context = i32;

        fn run(function: F, context: &mut i32) {
            *context = function(*context);
        }
    }

    #[test]
    fn a_name_calls_its_function() {
        let double = Remote::new::<Apply, _>(|n: i32| 2 * n).unwrap();
        let negate = Remote::new::<Apply, _>(|n: i32| -n).unwrap();
        let bytes = postcard::to_stdvec(&(double, negate)).unwrap();
        let (double, negate): (Remote, Remote) = postcard::from_bytes(&bytes).unwrap();
        let mut number = 21;
        double.call(&mut number).unwrap();
        negate.call(&mut number).unwrap();
        assert_eq!(number, -42);
    }

    #[test]
    fn another_context_is_refused() {
        let double = Remote::new::<Apply, _>(|n: i32| 2 * n).unwrap();
        let mut other = 21u32;
        assert!(double.call(&mut other).is_err());
        assert_eq!(other, 21);
    }

    #[test]
    fn a_caught_panic_says_how_it_came_about() {
        crate::panics::watch_here();
        let panic = catch_traced(|| -> () { panic!("number {}", 7) }).unwrap_err();
        assert_eq!(panic.message, "number 7");
        assert!(panic.location.contains("remote.rs:"), "{}", panic.location);
        assert!(panic.backtrace.contains("a_caught_panic"), "{}", panic.backtrace);
        assert_eq!(catch_traced(|| 5).unwrap(), 5);
    }
}
