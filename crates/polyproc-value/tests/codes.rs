//! Type codes, and what is typed by them at run time.

mod support;

use polyproc_value::{
    AnyArray, AnyArrayError, AnyValue, AnyValueError, Arena, Array, ArrayError, Number, NumberError,
    PoisonCause, RawArray, RawValue, Scalar, TypeCode, UnknownTypeCode, Value, array, raw_array, raw_value,
    value,
};
use proptest::prelude::*;
use std::error::Error;
use std::fmt::Debug;
use support::panic_message;

fn integers() -> impl Iterator<Item = TypeCode> {
    TypeCode::ALL.into_iter().filter(|code| !code.is_float())
}

/// The smallest and the largest number of an integer code, from its size alone.
fn limits(code: TypeCode) -> (i128, i128) {
    let bits = 8 * code.size() as u32;
    let signed = char::from(code).is_ascii_lowercase();
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

#[test]
fn codes_are_what_c_and_python_mean() {
    let table = [
        ('b', 1, "signed char", "i8"),
        ('B', 1, "unsigned char", "u8"),
        ('h', 2, "short", "i16"),
        ('H', 2, "unsigned short", "u16"),
        ('i', 4, "int", "i32"),
        ('I', 4, "unsigned int", "u32"),
        ('l', 8, "long", "i64"),
        ('L', 8, "unsigned long", "u64"),
        ('f', 4, "float", "f32"),
        ('d', 8, "double", "f64"),
    ];
    for (character, size, c_name, rust_type) in table {
        let code = TypeCode::try_from(character).unwrap();
        assert_eq!((char::from(code), code.size()), (character, size));
        assert_eq!((code.c_name(), code.rust_type()), (c_name, rust_type));
        assert_eq!(code.to_string().parse(), Ok(code));
    }
    assert_eq!(table.map(|row| TypeCode::try_from(row.0).unwrap()), TypeCode::ALL);
    assert_eq!(TypeCode::try_from('q'), Ok(TypeCode::Long));
    assert_eq!(TypeCode::try_from('Q'), Ok(TypeCode::UnsignedLong));
    assert_eq!(TypeCode::of::<i64>(), Some(TypeCode::Long));
    assert_eq!(TypeCode::of::<isize>(), None);
    assert_eq!(TypeCode::of::<[i32; 1]>(), None);
}

#[test]
fn an_unknown_code_is_told_with_those_that_are_known() {
    let known = "known are b B h H i I l L f d, and q Q for the 64-bit types";
    for unknown in ['x', 'u', 'c', '\0', 'é'] {
        let error = TypeCode::try_from(unknown).unwrap_err();
        assert_eq!(error, UnknownTypeCode(unknown.into()));
        assert_eq!(error.to_string(), format!("unknown type code '{}': {known}", unknown.escape_debug()));
    }
    for unknown in ["", "ii", "int"] {
        let error = unknown.parse::<TypeCode>().unwrap_err();
        assert_eq!(error.to_string(), format!("unknown type code '{unknown}': {known}"));
    }
}

/// A value, an array, and their raw forms keep the extremes of a type.
fn keeps<T: Scalar>(numbers: &[T]) {
    let value = Value::new(T::default()).unwrap();
    let raw = RawValue::new(T::default()).unwrap();
    let any = AnyValue::new(T::CODE, 0).unwrap();
    assert_eq!(any.code(), T::CODE);
    for &number in numbers {
        value.set(number).unwrap();
        assert_eq!(value.get(), Ok(number));
        raw.store(number);
        assert_eq!(raw.load(), number);
        any.set(number).unwrap();
        assert_eq!(any.get(), Ok(number.into()));
        assert_eq!(any.typed::<T>().unwrap().get(), Ok(number));
    }
    assert_eq!(Array::new(numbers).unwrap().to_vec().unwrap(), numbers);
    assert_eq!(RawArray::new(numbers).unwrap().to_vec(), numbers);
    let any = AnyArray::new(T::CODE, numbers.iter().copied()).unwrap();
    assert_eq!((any.code(), any.len()), (T::CODE, numbers.len()));
    assert_eq!(any.typed::<T>().unwrap().to_vec().unwrap(), numbers);
}

#[test]
fn all_ten_codes_keep_their_extremes() {
    keeps(&[0, 1, i8::MIN, i8::MAX]);
    keeps(&[0, 1, u8::MIN, u8::MAX]);
    keeps(&[0, 1, i16::MIN, i16::MAX]);
    keeps(&[0, 1, u16::MIN, u16::MAX]);
    keeps(&[0, 1, i32::MIN, i32::MAX]);
    keeps(&[0, 1, u32::MIN, u32::MAX]);
    keeps(&[0, 1, i64::MIN, i64::MAX]);
    keeps(&[0, 1, u64::MIN, u64::MAX]);
    keeps(&[0.0, 1.5, f32::MIN, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY]);
    keeps(&[0.0, 1.5, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY]);
}

/// The macros give the type that the code names: this compiles.
#[test]
fn macros_pick_the_type() {
    fn check<T: Debug>(made: std::io::Result<T>) -> T {
        made.unwrap()
    }
    assert_eq!(check::<Value<i8>>(value!('b', -128)).get(), Ok(-128));
    assert_eq!(check::<Value<u8>>(value!('B', 255)).get(), Ok(255));
    assert_eq!(check::<Value<i16>>(value!('h', -1)).get(), Ok(-1));
    assert_eq!(check::<Value<u16>>(value!('H', 65535)).get(), Ok(65535));
    assert_eq!(check::<Value<i32>>(value!('i', -1)).get(), Ok(-1));
    assert_eq!(check::<Value<u32>>(value!('I', 1,)).get(), Ok(1));
    assert_eq!(check::<Value<i64>>(value!('l')).get(), Ok(0));
    assert_eq!(check::<Value<u64>>(value!('L', u64::MAX)).get(), Ok(u64::MAX));
    assert_eq!(check::<Value<i64>>(value!('q', 1)).get(), Ok(1));
    assert_eq!(check::<Value<u64>>(value!('Q', 1)).get(), Ok(1));
    assert_eq!(check::<Value<f32>>(value!('f', 0.1)).get(), Ok(0.1f32));
    assert_eq!(check::<Value<f64>>(value!('d', 0.1)).get(), Ok(0.1));

    let slice: &[u16] = &[1, 2];
    assert_eq!(check::<Array<u16>>(array!('H', slice)).to_vec(), Ok(vec![1, 2]));
    assert_eq!(check::<Array<i32>>(array!('i', vec![1, 2])).to_vec(), Ok(vec![1, 2]));
    assert_eq!(check::<Array<f64>>(array!('d', [])).len(), 0);
    let len = 1 + 2;
    assert_eq!(check::<Array<i8>>(array!('b'; len)).to_vec(), Ok(vec![0; 3]));
    assert_eq!(check::<RawValue<f32>>(raw_value!('f', 0.5)).load(), 0.5);
    assert_eq!(check::<RawArray<u8>>(raw_array!('B', [1, 2])).to_vec(), [1, 2]);
    assert_eq!(check::<RawArray<i64>>(raw_array!('q'; 2)).to_vec(), [0, 0]);
}

#[test]
fn array_macros_take_lists_ranges_and_lengths() {
    let list = vec![1i32, 2, 3];
    let slice: &[i32] = &list;
    for array in
        [array!('i', [1, 2, 3]), array!('i', list), array!('i', slice), array!('i', 1..4), array!('i', 1..=3)]
    {
        assert_eq!(array.unwrap().to_vec().unwrap(), list);
    }
    assert_eq!(array!('i', list[1..]).unwrap().to_vec().unwrap(), [2, 3]);
    assert_eq!(array!('L', 3).unwrap().to_vec().unwrap(), [0u64; 3]);
    assert_eq!(array!('h', list.len()).unwrap().to_vec().unwrap(), [0i16; 3]);
    assert_eq!(array!('b', 3..3).unwrap().len(), 0);
    assert_eq!(array!('d', 0..3).unwrap().to_vec().unwrap(), [0.0, 1.0, 2.0]);
    assert_eq!(array!('f', [1, 2]).unwrap().to_vec().unwrap(), [1.0, 2.0]);
    assert_eq!(raw_array!('B', 250..=255).unwrap().to_vec(), [250, 251, 252, 253, 254, 255]);
    assert_eq!(raw_array!('d', 2).unwrap().to_vec(), [0.0, 0.0]);
    assert_eq!((value!('d', 2).unwrap().get().unwrap(), raw_value!('f', -2).unwrap().load()), (2.0, -2.0));
}

#[test]
fn a_number_outside_of_its_code_is_an_error_and_changes_nothing() {
    for code in integers() {
        let (min, max) = limits(code);
        let value = AnyValue::new(code, 1).unwrap();
        let array = AnyArray::new(code, [1, 2]).unwrap();
        for number in [min - 1, max + 1, i128::MIN, i128::MAX] {
            let expected = NumberError::OutOfRange {
                code,
                number: Number::Int(number),
                min: Number::Int(min),
                max: Number::Int(max),
            };
            assert_eq!(value.set(number), Err(AnyValueError::Number(expected)));
            assert_eq!(value.update(|_| number), Err(expected.into()));
            assert_eq!(array.set(0, number), Err(AnyArrayError::Number(expected)));
            assert_eq!(array.update(0, |_| number), Err(expected.into()));
            assert_eq!(array.write(.., [1, number]), Err(expected.into()));
            let creation = AnyValue::new(code, number).unwrap_err();
            assert_eq!(creation.kind(), std::io::ErrorKind::InvalidInput);
            assert_eq!(creation.get_ref().unwrap().downcast_ref(), Some(&expected));
            assert!(AnyArray::new(code, [number]).is_err());
        }
        let float = NumberError::NotAnInteger { code, number: Number::Float(1.0) };
        assert_eq!(value.set(1.0), Err(float.into()));
        assert_eq!(value.get(), Ok(Number::Int(1)));
        assert_eq!(array.to_vec().unwrap(), [1, 2]);
    }
    let error = AnyValue::new(TypeCode::UnsignedChar, -1).unwrap_err().to_string();
    assert_eq!(error, "-1 is out of the range of type code 'B' (unsigned char, u8), 0 to 255");
    let error = AnyValue::new(TypeCode::Int, 1.0).unwrap_err().to_string();
    assert_eq!(error, "1.0 is a float, and type code 'i' (int, i32) is one of integers");
}

#[test]
fn floats_are_rounded_and_never_become_infinite() {
    let float = AnyValue::new(TypeCode::Float, 0.1).unwrap();
    assert_eq!(float.get(), Ok(Number::Float(f64::from(0.1f32))));
    for huge in [1e39, -1e39, f64::MAX] {
        let error = float.set(huge).unwrap_err();
        assert!(matches!(error, AnyValueError::Number(NumberError::OutOfRange { .. })), "{error}");
    }
    assert_eq!(
        float.set(1e39).unwrap_err().to_string(),
        "1e39 is out of the range of type code 'f' (float, f32), -3.4028234663852886e38 to 3.4028234663852886e38"
    );
    assert_eq!(float.get(), Ok(Number::Float(f64::from(0.1f32))), "unchanged");
    for special in [f64::INFINITY, f64::NEG_INFINITY, -0.0] {
        float.set(special).unwrap();
        assert_eq!(float.get(), Ok(Number::Float(special)));
    }
    float.set(f64::NAN).unwrap();
    assert!(float.get().unwrap().as_f64().is_nan());
    // Integers of any size are finite as floats.
    float.set(i128::MAX).unwrap();
    assert_eq!(float.get().unwrap().as_f64(), 2f64.powi(127));
    let double = AnyValue::new(TypeCode::Double, 3).unwrap();
    assert_eq!(double.get(), Ok(Number::Float(3.0)));
}

proptest! {
    /// A number is kept exactly, or refused; never changed.
    #[test]
    fn an_integer_is_kept_or_refused(number: i128, shift in 0u32..128, which in 0usize..8) {
        let code = integers().nth(which).unwrap();
        // Small ones and large ones.
        let number = number >> shift;
        let (min, max) = limits(code);
        match AnyValue::new(code, number) {
            Ok(value) => {
                prop_assert!((min..=max).contains(&number));
                prop_assert_eq!(value.get(), Ok(Number::Int(number)));
            }
            Err(_) => prop_assert!(!(min..=max).contains(&number)),
        }
    }

    #[test]
    fn a_float_is_rounded_as_by_rust_or_refused(bits: u64, narrow: bool) {
        let number = f64::from_bits(bits);
        let code = if narrow { TypeCode::Float } else { TypeCode::Double };
        let expected = if narrow { f64::from(number as f32) } else { number };
        match AnyValue::new(code, number) {
            Ok(value) => {
                let found = value.get().unwrap().as_f64();
                prop_assert!(found == expected || found.is_nan() && expected.is_nan());
            }
            Err(_) => prop_assert!(number.is_finite() && expected.is_infinite()),
        }
    }
}

#[test]
fn any_value_and_any_array_do_what_the_typed_ones_do() {
    let arena = Arena::new(1024).unwrap();
    let value = AnyValue::new_in(&arena, TypeCode::Short, 5).unwrap();
    assert_eq!(value.update(|n| n.as_i128().unwrap() + 1), Ok(Number::Int(5)));
    assert_eq!(value.get().unwrap(), 6);
    assert!(value.typed::<i32>().is_none());
    assert_eq!(format!("{value:?}"), "AnyValue('h', Value { value: 6, poison: None, .. })");
    assert_eq!(AnyValue::from(value.typed::<i16>().unwrap().clone()).get().unwrap(), 6);

    let array = AnyArray::new_in(&arena, TypeCode::Double, [0.5, 1.5, 2.5]).unwrap();
    assert_eq!(array.update(1, |n| n.as_f64() * 2.0), Ok(Number::Float(1.5)));
    array.write(..1, [7]).unwrap();
    assert_eq!(array.read(..2).unwrap(), [7.0, 3.0]);
    assert_eq!(array.get(2).unwrap(), 2.5);
    assert!(matches!(array.set(3, 0), Err(AnyArrayError::Array(ArrayError::OutOfRange(_)))));
    assert!(matches!(
        array.write(.., [1, 2]),
        Err(AnyArrayError::Array(ArrayError::LengthMismatch { range: 3, slice: 2 }))
    ));
    let zeroed = AnyArray::zeroed_in(&arena, TypeCode::UnsignedChar, 3).unwrap();
    assert_eq!(zeroed.to_vec().unwrap(), [0; 3]);
    assert!(AnyArray::zeroed(TypeCode::Float, 0).unwrap().is_empty());
    let borrowed: &[i64] = &[1, 2, 3];
    let copied = AnyArray::new_in(&arena, TypeCode::Double, borrowed).unwrap();
    assert_eq!(copied.to_vec().unwrap(), borrowed, "whole numbers are equal, whatever they are kept as");
    assert!(AnyArray::zeroed(TypeCode::Long, usize::MAX).is_err());
}

#[test]
fn poison_reaches_the_any_types() {
    let cause = PoisonCause::Panicked { pid: std::process::id() };
    let value = AnyValue::new(TypeCode::Int, 1).unwrap();
    let guard = value.typed::<i32>().unwrap().lock().unwrap();
    assert!(value.is_locked() && !value.is_poisoned());
    drop(guard);
    panic_message(|| {
        let _guard = value.typed::<i32>().unwrap().lock().unwrap();
        panic!("under the guard");
    });
    assert!(value.is_poisoned() && !value.is_locked());
    assert_eq!(value.poison_cause(), Some(cause));
    let error = value.set(2).unwrap_err();
    assert!(matches!(error, AnyValueError::Poisoned(poisoned) if poisoned.cause() == cause));
    assert_eq!(error.source().unwrap().to_string(), error.to_string());
    value.clear_poison();
    assert_eq!(value.get().unwrap(), 1);

    let array = AnyArray::zeroed(TypeCode::Int, 1).unwrap();
    let guard = array.typed::<i32>().unwrap().lock().unwrap();
    assert!(array.is_locked() && !array.is_poisoned());
    drop(guard);
    panic_message(|| {
        let _guard = array.typed::<i32>().unwrap().lock().unwrap();
        panic!("under the guard");
    });
    assert!(array.is_poisoned() && !array.is_locked());
    assert_eq!(array.to_vec().unwrap_err().cause(), cause);
    assert!(matches!(array.set(0, 2), Err(AnyArrayError::Array(ArrayError::Poisoned(_)))));
    array.clear_poison();
    assert_eq!(array.poison_cause(), None);
}
