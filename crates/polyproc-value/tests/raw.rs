//! `RawValue` and `RawArray`: every access is atomic.

mod support;

use polyproc_value::{Arena, Integer, OutOfRange, RawArray, RawValue, Scalar};
use std::thread;
use support::Child;

/// What all scalars do, with 1 and 2 of the type.
fn scalar<T: Scalar>(one: T, two: T) {
    let arena = Arena::new(1024).unwrap();
    let zero = T::default();
    let value = RawValue::new_in(&arena, zero).unwrap();
    let array = RawArray::new_in(&arena, &[zero, zero]).unwrap();
    let same = value.clone();
    assert_eq!(value.fetch_add(two), zero);
    assert_eq!(same.fetch_sub(one), two);
    assert_eq!(value.swap(two), one);
    assert_eq!(value.fetch_min(one), two);
    assert_eq!(value.fetch_max(two), one);
    assert_eq!(value.compare_exchange(one, zero), Err(two));
    assert_eq!(value.compare_exchange(two, one), Ok(two));
    assert_eq!(value.fetch_update(|n| (n == one).then_some(two)), Ok(one));
    assert_eq!(value.fetch_update(|n| (n == one).then_some(zero)), Err(two));
    assert_eq!(same.load(), two);

    assert_eq!(array.fetch_add(1, two), Ok(zero));
    assert_eq!(array.fetch_sub(1, one), Ok(two));
    assert_eq!(array.swap(1, two), Ok(one));
    assert_eq!(array.fetch_min(1, one), Ok(two));
    assert_eq!(array.fetch_max(1, two), Ok(one));
    assert_eq!(array.compare_exchange(1, one, zero), Ok(Err(two)));
    assert_eq!(array.compare_exchange(1, two, one), Ok(Ok(two)));
    assert_eq!(array.fetch_update(1, |n| (n == one).then_some(two)), Ok(Ok(one)));
    assert_eq!(array.fetch_update(1, |_| None), Ok(Err(two)));
    assert_eq!(array.to_vec(), [zero, two]);

    let missing = OutOfRange { index: 2, len: 2 };
    assert_eq!(array.load(2), Err(missing));
    assert_eq!(array.store(2, one), Err(missing));
    assert_eq!(array.swap(2, one), Err(missing));
    assert_eq!(array.compare_exchange(2, one, one), Err(missing));
    assert_eq!(array.fetch_add(2, one), Err(missing));
    assert_eq!(array.fetch_update(2, |_| Some(one)), Err(missing));
    assert_eq!(array.clone().to_vec(), [zero, two], "unchanged");
}

fn integer<T: Integer>(one: T, two: T, three: T) {
    scalar(one, two);
    let value = RawValue::new(one).unwrap();
    let array = RawArray::new(&[one]).unwrap();
    assert_eq!((value.fetch_or(two), array.fetch_or(0, two)), (one, Ok(one)));
    assert_eq!((value.fetch_and(two), array.fetch_and(0, two)), (three, Ok(three)));
    assert_eq!((value.fetch_xor(three), array.fetch_xor(0, three)), (two, Ok(two)));
    assert_eq!((value.load(), array.load(0)), (one, Ok(one)));
}

#[test]
fn every_operation_of_every_type() {
    integer(1i8, 2, 3);
    integer(1u8, 2, 3);
    integer(1i16, 2, 3);
    integer(1u16, 2, 3);
    integer(1i32, 2, 3);
    integer(1u32, 2, 3);
    integer(1i64, 2, 3);
    integer(1u64, 2, 3);
    scalar(1.0f32, 2.0);
    scalar(1.0f64, 2.0);
}

#[test]
fn integers_wrap_and_floats_compare_bits() {
    assert_eq!(RawValue::new(i8::MAX).unwrap().fetch_add(1), i8::MAX);
    let value = RawValue::new(i8::MAX).unwrap();
    value.fetch_add(1);
    assert_eq!(value.load(), i8::MIN);
    value.fetch_max(-1);
    assert_eq!(value.load(), -1, "compared as signed");

    let float = RawValue::new(-0.0f64).unwrap();
    assert!(float.compare_exchange(0.0, 1.0).is_err());
    assert!(float.compare_exchange(-0.0, f64::NAN).is_ok());
    assert!(float.compare_exchange(f64::NAN, 1.0).is_ok());
    float.fetch_max(f64::NAN);
    assert_eq!(float.load(), 1.0);
}

#[test]
fn nothing_is_lost_between_threads_or_processes() {
    let (count, sum) = (RawValue::new(0u32).unwrap(), RawArray::<f64>::zeroed(3).unwrap());
    let work = || {
        for n in 0..10_000u32 {
            count.fetch_add(1);
            sum.fetch_add(1, 0.5).unwrap();
            sum.fetch_max(2, n.into()).unwrap();
        }
    };
    let children = [(); 2].map(|()| Child::fork(|| (work(), true).1));
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    children.into_iter().for_each(Child::join);
    assert_eq!(count.load(), 40_000);
    assert_eq!(sum.to_vec(), [0.0, 20_000.0, 9_999.0]);
}

#[test]
fn debug_shows_the_numbers() {
    assert_eq!(format!("{:?}", RawValue::new(1.5f32).unwrap()), "RawValue(1.5)");
    assert_eq!(format!("{:?}", RawArray::new(&[1u8, 2]).unwrap()), "RawArray([1, 2])");
}

#[test]
fn an_array_can_be_empty_and_cannot_overflow() {
    let empty = RawArray::<u64>::zeroed(0).unwrap();
    assert!(empty.is_empty() && empty.to_vec().is_empty());
    assert!(empty.load(0).is_err());
    assert!(RawArray::<u64>::zeroed(usize::MAX / 4).is_err());
    assert!(RawArray::<u8>::zeroed_in(&Arena::new(64).unwrap(), 64).is_err(), "the arena is full");
}

#[test]
fn handles_are_send_and_sync() {
    fn both<T: Send + Sync>() {}
    both::<RawValue<f32>>();
    both::<RawArray<i8>>();
}
