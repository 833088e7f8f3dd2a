//! Handles that travel to another process, and what a receiver refuses.

mod support;

use polyproc_memory::handover;
use polyproc_value::{AnyArray, AnyValue, Arena, Array, RawArray, RawValue, TypeCode, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use support::{Child, hand_over, receive};

#[test]
fn what_arrives_is_the_same_object() {
    let arena = Arena::new(4096).unwrap();
    for value in [Value::new(1i32).unwrap(), Value::new_in(&arena, 1).unwrap()] {
        let there: Value<i32> = hand_over(&value).unwrap();
        there.set(2).unwrap();
        assert_eq!(value.get(), Ok(2));
        let guard = value.lock().unwrap();
        assert!(there.try_lock().is_err(), "one lock");
        drop(guard);
    }
    let big = Value::new_in(&arena, [1u64; 9]).unwrap();
    hand_over::<_, Value<[u64; 9]>>(&big).unwrap().set([2; 9]).unwrap();
    assert_eq!(big.get(), Ok([2; 9]));

    let array = Array::new_in(&arena, &[[1u8; 3], [2; 3]]).unwrap();
    let there: Array<[u8; 3]> = hand_over(&array).unwrap();
    there.set(1, [3; 3]).unwrap();
    assert_eq!((array.get(1), there.len()), (Ok([3; 3]), 2));
    assert!(hand_over::<_, Array<f64>>(&Array::<f64>::zeroed(0).unwrap()).unwrap().is_empty());

    let raw = RawValue::new_in(&arena, 1.5f32).unwrap();
    hand_over::<_, RawValue<f32>>(&raw).unwrap().fetch_add(1.0);
    assert_eq!(raw.load(), 2.5);

    let raw = RawArray::new(&[1u16, 2, 3]).unwrap();
    let there: RawArray<u16> = hand_over(&raw).unwrap();
    there.store(2, 9).unwrap();
    assert_eq!((raw.to_vec(), there.len()), (vec![1, 2, 9], 3));
}

#[test]
fn the_any_types_arrive_with_their_code() {
    for code in TypeCode::ALL {
        let value = AnyValue::new(code, 7).unwrap();
        let there: AnyValue = hand_over(&value).unwrap();
        assert_eq!(there.code(), code);
        there.set(8).unwrap();
        assert_eq!(value.get().unwrap().as_f64(), 8.0);

        let array = AnyArray::new(code, [1, 2, 3]).unwrap();
        let there: AnyArray = hand_over(&array).unwrap();
        assert_eq!((there.code(), there.len()), (code, 3));
        there.set(2, 9).unwrap();
        assert_eq!(array.get(2).unwrap().as_f64(), 9.0);
    }
}

#[test]
fn a_tuple_of_handles_in_one_arena_takes_one_descriptor() {
    let arena = Arena::new(4096).unwrap();
    let (value, array) = (Value::new_in(&arena, 1u8).unwrap(), Array::new_in(&arena, &[1u8]).unwrap());
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&(&value, &array, &arena)));
    assert_eq!(descriptors.len(), 1);
    let (there, array_there, _): (Value<u8>, Array<u8>, Arena) =
        receive(&bytes.unwrap(), &descriptors).unwrap();
    there.set(5).unwrap();
    array_there.set(0, 6).unwrap();
    assert_eq!((value.get(), array.get(0)), (Ok(5), Ok(6)));
}

fn refused<A: Serialize, B: DeserializeOwned + Debug>(handle: &A, expected: &str) {
    let error = hand_over::<A, B>(handle).unwrap_err();
    assert!(error.contains(expected), "{error:?} has no {expected:?}");
}

#[test]
fn another_type_or_kind_is_refused_and_named() {
    let value = Value::new(1i32).unwrap();
    refused::<_, Value<u32>>(&value, "type code");
    refused::<_, Value<f32>>(&value, "type code");
    refused::<_, Value<[u8; 4]>>(&value, "type code");
    refused::<_, Array<i32>>(&value, "value");
    refused::<_, RawValue<i32>>(&value, "value");
    let bytes = Value::new([0u8; 5]).unwrap();
    refused::<_, Value<[u8; 6]>>(&bytes, "5");
    refused::<_, Value<[u16; 5]>>(&bytes, "5");

    let array = Array::new(&[1i32]).unwrap();
    refused::<_, Array<i64>>(&array, "type code");
    refused::<_, RawArray<i32>>(&array, "array");
    refused::<_, Value<i32>>(&array, "array");
    refused::<_, Array<[u8; 3]>>(&Array::new(&[[1u8; 5]]).unwrap(), "5");

    refused::<_, RawValue<i8>>(&RawValue::new(1u8).unwrap(), "type code");
    refused::<_, RawArray<f64>>(&RawArray::new(&[1u64]).unwrap(), "type code");
    refused::<_, Value<u8>>(&RawValue::new(1u8).unwrap(), "rvalue");
    refused::<_, AnyArray>(&AnyValue::new(TypeCode::Int, 1).unwrap(), "value");
}

#[test]
fn a_false_code_of_an_any_value_is_refused() {
    let value = AnyValue::new(TypeCode::Int, 1).unwrap();
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&value));
    let mut bytes = bytes.unwrap();
    let place = bytes.iter().position(|byte| *byte == b'i').unwrap();
    bytes[place] = b'f';
    assert!(receive::<AnyValue>(&bytes, &descriptors).unwrap_err().contains("type code"));
    bytes[place] = b'x';
    assert!(receive::<AnyValue>(&bytes, &descriptors).is_err());
    assert!(receive::<AnyValue>(&[], &descriptors).is_err());
}

#[test]
fn outside_of_a_hand_over_serialising_says_how_to_send() {
    fn check<T: Serialize>(handle: T) {
        assert!(postcard::to_stdvec(&handle).is_err());
        assert_eq!(handover::take_failure().unwrap().to_string(), handover::NOT_IN_HANDOVER);
    }
    check(Value::new(1u8).unwrap());
    check(Array::new(&[1u8]).unwrap());
    check(RawValue::new(1u8).unwrap());
    check(RawArray::new(&[1u8]).unwrap());
    check(AnyValue::new(TypeCode::Int, 1).unwrap());
    check(AnyArray::zeroed(TypeCode::Int, 1).unwrap());
}

#[test]
fn a_process_that_received_a_handle_works_on_the_same_value() {
    let (value, array) = (Value::new(1i32).unwrap(), Array::new(&[1u64, 2]).unwrap());
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&(&value, &array)));
    let bytes = bytes.unwrap();
    let child = Child::fork(|| {
        let (value, array): (Value<i32>, Array<u64>) = receive(&bytes, &descriptors).unwrap();
        value.update(|n| *n += 1).unwrap();
        array.lock().unwrap().iter_mut().for_each(|n| *n *= 2);
        true
    });
    child.join();
    assert_eq!(value.get(), Ok(2));
    assert_eq!(array.to_vec(), Ok(vec![2, 4]));
}
