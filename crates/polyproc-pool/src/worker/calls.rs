//! How each kind of function is called: what it gets, and where its result goes.

use super::{NOT_HERE, Run};
use crate::items::{self, Appended, Tag};
use bytemuck::Pod;
use polyproc_memory::handover;
use polyproc_process::Function;
use polyproc_process::remote::Adapter;
use polyproc_value::Loan;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::fmt::Display;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

/// How an initializer or the maker of a state is called.
pub(crate) struct Setup {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) made: Result<Box<dyn Any>, String>,
}

impl Setup {
    fn call<F: Function<Args>, Args: DeserializeOwned + 'static>(
        &mut self,
        function: F,
    ) -> Option<F::Output> {
        match items::read_with::<Args>(&self.bytes, std::mem::take(&mut self.descriptors)) {
            Ok(arguments) => Some(function.call(arguments)),
            Err(why) => {
                self.made = Err(format!("cannot read the arguments: {why}"));
                None
            }
        }
    }
}

/// What an initializer may return: nothing, or a `Result` whose error says why it failed.
pub trait Initialized {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), String>;
}

impl Initialized for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<T, E: Display> Initialized for Result<T, E> {
    fn into_result(self) -> Result<(), String> {
        self.map(drop).map_err(|error| error.to_string())
    }
}

/// An initializer.
pub(crate) struct Initialize<Args>(PhantomData<fn(Args)>);

impl<F: Function<Args>, Args: DeserializeOwned + 'static> Adapter<F> for Initialize<Args>
where
    F::Output: Initialized,
{
    type Context = Setup;

    fn run(function: F, setup: &mut Setup) {
        if let Some(Err(why)) = setup.call(function).map(Initialized::into_result) {
            setup.made = Err(why);
        }
    }
}

/// The maker of a state.
pub(crate) struct MakeState<Args>(PhantomData<fn(Args)>);

impl<F: Function<Args>, Args: DeserializeOwned + 'static> Adapter<F> for MakeState<Args>
where
    F::Output: 'static,
{
    type Context = Setup;

    fn run(function: F, setup: &mut Setup) {
        if let Some(state) = setup.call(function) {
            setup.made = Ok(Box::new(state));
        }
    }
}

/// How the last state is sent.
pub(crate) struct Last {
    pub(super) state: Box<dyn Any>,
    pub(super) item: Vec<u8>,
    pub(super) descriptors: Vec<handover::Descriptor>,
}

pub(crate) struct SendState<S>(PhantomData<fn(S)>);

impl<S: Serialize + 'static + 'static> Adapter<()> for SendState<S> {
    type Context = Last;

    fn run((): (), last: &mut Last) {
        let state = last.state.downcast_ref::<S>().ok_or_else(|| NOT_HERE.to_owned());
        let appended = match state {
            Ok(state) => items::append(&mut last.item, Tag::Value, state),
            Err(why) => Appended::Not(why),
        };
        match appended {
            Appended::Plain => {}
            Appended::Handles(descriptors) => last.descriptors = descriptors,
            Appended::Not(why) => items::append_text(&mut last.item, Tag::Unsendable, &why),
        }
    }
}

/// A function of one argument.
pub(crate) struct Map<T, R>(PhantomData<fn(T) -> R>);

impl<F: Fn(T) -> R, T: DeserializeOwned + 'static, R: Serialize + 'static> Adapter<F> for Map<T, R> {
    type Context = Run;

    fn run(function: F, run: &mut Run) {
        run.each(|_, item| function(item));
    }
}

/// A function whose arguments are a tuple.
pub(crate) struct StarMap<Args>(PhantomData<fn(Args)>);

impl<F: Function<Args>, Args: DeserializeOwned + 'static> Adapter<F> for StarMap<Args>
where
    F::Output: Serialize,
{
    type Context = Run;

    fn run(function: F, run: &mut Run) {
        run.each(|_, arguments| function.call(arguments));
    }
}

/// A function of the worker's state and one argument.
pub(crate) struct MapWithState<S, T, R>(PhantomData<fn(S, T) -> R>);

impl<F: Fn(&mut S, T) -> R, S: 'static, T: DeserializeOwned + 'static, R: Serialize + 'static> Adapter<F>
    for MapWithState<S, T, R>
{
    type Context = Run;

    fn run(function: F, run: &mut Run) {
        run.each(|state, item| {
            let state = state.downcast_mut::<S>().expect("the pool's functions take the state that it makes");
            function(state, item)
        });
    }
}

/// A function of a part of an array that is lent.
pub(crate) struct ForEachChunk<T>(PhantomData<fn(T)>);

impl<F: Fn(&mut [T]), T: Pod> Adapter<F> for ForEachChunk<T> {
    type Context = Run;

    fn run(function: F, run: &mut Run) {
        let mut last =
            run.lent.take().and_then(|(_, last)| last.downcast::<Loan<T>>().ok()).map(|last| *last);
        run.each(|_, (mut loan, start, end): (Loan<T>, usize, usize)| {
            if let Some(last) = last.take() {
                loan.follow(last);
            }
            if let Err(why) = loan.with(start..end, |part| function(part)) {
                panic!("cannot work on the array: {why}");
            }
            last = Some(loan);
        });
        if let (Some(loan), Some(function)) = (last, run.function) {
            run.lent = Some((function, Box::new(loan)));
        }
    }
}
