//! The place in the program where a child begins with its function.
//!
//! For each function that is spawned the compiler makes one [`Entry`], which knows the types: it reads the
//! arguments, calls the function, and writes down what it returned. Its address, not the function's, is what
//! the parent sends.

#![allow(unsafe_code)]

use crate::channel::{Outcome, Start, Verdict};
use crate::error::CodecError;
use crate::function::Function;
use crate::{image, panics};
use polyproc_memory::handover;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// What a child calls, with the bytes and descriptors of its arguments.
pub(crate) type Entry = fn(&[u8], Vec<OwnedFd>) -> Outcome;

/// Refuses at compile time what has a size, and is thus more than its type. To be called where users call, so
/// that the compiler names their line.
pub(crate) const fn assert_plain<F>() {
    assert!(
        size_of::<F>() == 0,
        "a process runs a plain `fn` or a closure that captures nothing: not a function pointer, and not a closure \
         that captures something (send it as an argument instead)"
    );
}

/// The entry of this function.
pub(crate) fn entry_of<F, Args>(_: F) -> Entry
where
    F: Function<Args>,
    F::Output: Serialize,
    Args: DeserializeOwned,
{
    const { assert_plain::<F>() };
    enter::<F, Args>
}

/// Runs the function that the parent's message names.
pub(crate) fn run(start: &Start, arguments: &[u8], descriptors: Vec<OwnedFd>) -> Outcome {
    match image::address_of(start.place) {
        Some(address) => {
            // SAFETY: a start message comes from a parent that started `/proc/self/exe`, its own file, as
            // this process, and made the place with `place_of`, of an `Entry`.
            let entry = unsafe { core::mem::transmute::<*const (), Entry>(address) };
            entry(arguments, descriptors)
        }
        None => Outcome::arguments("the program's file is not the one that the parent runs"),
    }
}

fn enter<F, Args>(arguments: &[u8], descriptors: Vec<OwnedFd>) -> Outcome
where
    F: Function<Args>,
    F::Output: Serialize,
    Args: DeserializeOwned,
{
    panics::catch(|| {
        let arguments = handover::receive(descriptors, || postcard::from_bytes::<Args>(arguments));
        match arguments {
            Ok(arguments) => {
                // SAFETY: this function is only reached by an address that `entry_of` gave out to somebody
                // who had such a value; and its size is zero, which is checked there.
                let function = unsafe { conjure::<F>() };
                returned(&function.call(arguments))
            }
            Err(error) => Outcome::arguments(CodecError::new(error)),
        }
    })
}

/// A value of a type that has only one.
///
/// # Safety
///
/// The type has no size. Somebody had such a value, in this program if not in this process, and may have
/// copied it.
pub(crate) unsafe fn conjure<F: Copy>() -> F {
    // SAFETY: a value of no size is read from no memory, so that any aligned pointer will do; that there may
    // be one is the caller's promise.
    unsafe { NonNull::<F>::dangling().read() }
}

/// The outcome of a function that returned this.
pub(crate) fn returned<R: Serialize>(value: &R) -> Outcome {
    match handover::send(|| postcard::to_stdvec(value)) {
        (Ok(value), descriptors) => Outcome { verdict: Verdict::Returned, value, descriptors },
        (Err(error), _) => Outcome::of(Verdict::Value(CodecError::new(error).to_string())),
    }
}
