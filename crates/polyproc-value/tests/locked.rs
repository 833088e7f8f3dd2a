//! `Value` and `Array` in one process: what the operations do, refuse, and wait for.

mod support;

use bytemuck::{Pod, Zeroable};
use polyproc_value::{
    Arena, Array, ArrayError, ArrayGuard, LockTimeoutError, OutOfRange, PoisonCause, TryLockError, Value,
    ValueGuard,
};
use std::fmt::Debug;
use std::time::{Duration, Instant};
use support::{panic_message, watched};

#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Aligned([u64; 4]);

// SAFETY: four numbers.
unsafe impl Zeroable for Aligned {}
// SAFETY: four numbers and no padding.
unsafe impl Pod for Aligned {}

/// Everything that a value and an array do, with three different values of a type.
fn all_operations<T: Pod + PartialEq + Debug>([a, b, c]: [T; 3]) {
    let arena = Arena::new(64 << 10).unwrap();
    for value in [Value::new(a).unwrap(), Value::new_in(&arena, a).unwrap()] {
        let other = value.clone();
        assert_eq!(value.get(), Ok(a));
        // Twice each, so that both slots of a value that has two have their turn.
        for _ in 0..2 {
            value.set(b).unwrap();
            assert_eq!(other.get(), Ok(b));
            assert_eq!(value.update(|v| std::mem::replace(v, c)), Ok(b));
            assert_eq!(other.get(), Ok(c));
            assert_eq!(other.update(|v| *v), Ok(c));
            let mut guard = value.lock().unwrap();
            assert_eq!(*guard, c);
            *guard = a;
            drop(guard);
            assert_eq!(other.get(), Ok(a));
        }
    }
    for array in [Array::new(&[a, b, c]).unwrap(), Array::new_in(&arena, &[a, b, c]).unwrap()] {
        let other = array.clone();
        assert_eq!(array.len(), 3);
        assert_eq!(array.to_vec(), Ok(vec![a, b, c]));
        for (index, element) in [a, b, c].into_iter().enumerate() {
            assert_eq!(other.get(index), Ok(element));
        }
        array.set(2, a).unwrap();
        assert_eq!(array.update(0, |v| std::mem::replace(v, b)), Ok(a));
        assert_eq!(other.to_vec(), Ok(vec![b, b, a]));
        other.write(1..3, &[c, b]).unwrap();
        assert_eq!(array.read(..=1), Ok(vec![b, c]));
        array.lock().unwrap().swap(0, 1);
        assert_eq!(other.to_vec(), Ok(vec![c, b, b]));
    }
    let zero = Array::<T>::zeroed_in(&arena, 2).unwrap();
    assert_eq!(zero.to_vec(), Ok(vec![T::zeroed(); 2]));
}

#[test]
fn every_size_and_alignment_works() {
    all_operations([1i8, -2, i8::MAX]);
    all_operations([1u16, 2, u16::MAX]);
    all_operations([1.5f32, -0.0, f32::MAX]);
    all_operations([1u64, 2, u64::MAX]);
    all_operations([(), (), ()]);
    all_operations([[1u8; 3], [2; 3], [3; 3]]);
    all_operations([[1u8; 4], [2; 4], [3; 4]]);
    all_operations([[1u16; 4], [2; 4], [3; 4]]);
    all_operations([[1u8; 8], [2; 8], [3; 8]]);
    all_operations([[1u16; 5], [2; 5], [3; 5]]);
    all_operations([1u128, 2, u128::MAX]);
    all_operations([Aligned([1; 4]), Aligned([2; 4]), Aligned([3; 4])]);
    all_operations([[1.0f64; 128], [2.0; 128], [3.0; 128]]);
}

#[test]
fn a_number_takes_128_bytes_in_an_arena() {
    let arena = Arena::new(1280).unwrap();
    for _ in 0..5 {
        let used = arena.used();
        Value::new_in(&arena, 1i32).unwrap();
        assert_eq!(arena.used() - used, 128);
        Value::new_in(&arena, 1.0f64).unwrap();
    }
    let full = Value::new_in(&arena, 0u8).unwrap_err();
    assert!(full.to_string().contains("the arena is full"), "{full}");
}

#[test]
fn a_panic_in_update_changes_nothing_and_poisons_nothing() {
    let small = Value::new(1u8).unwrap();
    let big = Value::new([1u8; 9]).unwrap();
    let array = Array::new(&[[1u8; 9]]).unwrap();
    let panics = || panic!("in the closure");
    let messages = [
        panic_message(|| small.update(|v| (*v = 2, panics()).1)),
        panic_message(|| big.update(|v| (v.fill(2), panics()).1)),
        panic_message(|| array.update(0, |v| (v.fill(2), panics()).1)),
    ];
    assert_eq!(messages, ["in the closure"; 3]);
    assert_eq!(small.get(), Ok(1));
    assert_eq!(big.get(), Ok([1; 9]));
    assert_eq!(array.get(0), Ok([1; 9]));
}

#[test]
fn a_panic_under_a_guard_poisons() {
    let cause = PoisonCause::Panicked { pid: std::process::id() };
    let value = Value::new(1u8).unwrap();
    panic_message(|| {
        let _guard = value.lock().unwrap();
        panic!("under the guard");
    });
    assert_eq!(value.get().unwrap_err().cause(), cause);
    assert!(matches!(value.try_lock(), Err(TryLockError::Poisoned(error)) if error.cause() == cause));
    assert!(matches!(
        value.lock_timeout(Duration::ZERO),
        Err(LockTimeoutError::Poisoned(error)) if **error.get_ref() == 1
    ));

    let array = Array::new(&[1u8]).unwrap();
    panic_message(|| {
        let _guard = array.lock().unwrap();
        panic!("under the guard");
    });
    assert_eq!(array.to_vec().unwrap_err().cause(), cause);
    assert!(array.is_poisoned());
    array.clear_poison();
    assert_eq!(array.to_vec(), Ok(vec![1]));
}

/// A guard that is taken and dropped while the thread unwinds has seen no panic of its own.
#[test]
fn a_panic_before_the_lock_does_not_poison() {
    struct OnUnwind<'a>(&'a Value<u8>, &'a Array<u8>);
    impl Drop for OnUnwind<'_> {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = 2;
            self.1.lock().unwrap()[0] = 2;
        }
    }
    let (value, array) = (Value::new(1u8).unwrap(), Array::new(&[1u8]).unwrap());
    panic_message(|| {
        let _later = OnUnwind(&value, &array);
        panic!("before the lock");
    });
    assert_eq!((value.get(), array.get(0)), (Ok(2), Ok(2)));
}

#[test]
fn use_of_a_value_inside_its_own_update_panics_instead_of_hanging() {
    watched(|| {
        let value = Value::new(1i32).unwrap();
        let nested = [
            panic_message(|| value.update(|_| value.update(|v| *v += 1))),
            panic_message(|| value.update(|v| (*v = 5, value.get()).0)),
            panic_message(|| value.update(|_| value.set(5))),
            panic_message(|| value.update(|_| drop(value.lock()))),
        ];
        let guard = value.lock().unwrap();
        let under = [panic_message(|| value.get()), panic_message(|| value.lock().map(drop).is_ok())];
        drop(guard);
        for message in nested.iter().chain(&under) {
            assert_eq!(message, "deadlock: this thread takes a lock that it holds already");
        }
        assert_eq!(value.get(), Ok(1));

        let big = Value::new([1u8; 9]).unwrap();
        panic_message(|| big.update(|v| (v.fill(5), big.update(|v| v.fill(6))).0));
        assert_eq!(big.get(), Ok([1; 9]));

        let array = Array::new(&[1u8, 2]).unwrap();
        panic_message(|| array.update(0, |_| array.set(1, 5)));
        assert_eq!(array.to_vec(), Ok(vec![1, 2]));
    });
}

#[test]
fn whoever_catches_the_refusal_inside_goes_on() {
    let value = Value::new(1i32).unwrap();
    value
        .update(|v| {
            assert!(matches!(value.try_lock(), Err(TryLockError::WouldBlock)));
            let start = Instant::now();
            let timeout = Duration::from_millis(20);
            assert!(matches!(value.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
            assert!(start.elapsed() >= timeout);
            panic_message(|| value.get());
            *v = 2;
        })
        .unwrap();
    assert_eq!(value.get(), Ok(2));
}

#[test]
fn timeouts_are_kept_and_zero_polls() {
    let (value, array) = (Value::new(1i32).unwrap(), Array::new(&[1i32]).unwrap());
    let (held_value, held_array) = (value.lock().unwrap(), array.lock().unwrap());
    watched({
        let (value, array) = (value.clone(), array.clone());
        move || {
            let timeout = Duration::from_millis(30);
            for by_instant in [false, true] {
                let start = Instant::now();
                if by_instant {
                    assert!(matches!(value.lock_until(start + timeout), Err(LockTimeoutError::TimedOut)));
                } else {
                    assert!(matches!(array.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
                }
                assert!(start.elapsed() >= timeout);
            }
            assert!(matches!(value.lock_timeout(Duration::ZERO), Err(LockTimeoutError::TimedOut)));
            assert!(matches!(array.lock_until(Instant::now()), Err(LockTimeoutError::TimedOut)));
            assert!(matches!(value.try_lock(), Err(TryLockError::WouldBlock)));
            assert!(matches!(array.try_lock(), Err(TryLockError::WouldBlock)));
            assert!(value.is_locked() && array.is_locked());
            assert_eq!(value.holder(), Some(std::process::id()));
        }
    });
    drop((held_value, held_array));
    assert!(!value.is_locked() && !array.is_locked());
    assert_eq!(*value.lock_timeout(Duration::ZERO).unwrap(), 1);
    assert_eq!(*array.lock_until(Instant::now()).unwrap(), [1]);
}

#[test]
fn one_lock_more_than_the_kernel_releases_is_refused() {
    watched(|| {
        let arena = Arena::new(2049 * 128).unwrap();
        let values: Vec<_> = (0..2049).map(|n| Value::new_in(&arena, n).unwrap()).collect();
        let (last, others) = values.split_last().unwrap();
        let mut guards: Vec<_> = others.iter().map(|value| value.lock().unwrap()).collect();
        assert!(matches!(last.try_lock(), Err(TryLockError::TooManyLocks)));
        assert!(matches!(last.lock_timeout(Duration::ZERO), Err(LockTimeoutError::TooManyLocks)));
        for message in [panic_message(|| last.get()), panic_message(|| last.update(|n| *n += 1))] {
            assert!(message.starts_with("this thread holds 2048 locks"), "{message}");
        }
        guards.pop();
        assert_eq!(last.get(), Ok(2048));
    });
}

#[test]
fn a_forgotten_guard_keeps_the_memory() {
    std::thread::spawn(|| {
        let value = Value::new(1u64).unwrap();
        std::mem::forget(value.lock().unwrap());
        drop(value);
        // The forgotten lock is still in the thread's list, as a neighbour of this one.
        let other = Value::new(1u64).unwrap();
        assert_eq!(other.update(|n| *n + 1), Ok(2));
    })
    .join()
    .unwrap();
}

#[test]
fn what_is_out_of_range_is_an_error_with_both_numbers() {
    let array = Array::new(&[1i32, 2, 3]).unwrap();
    let missing = ArrayError::OutOfRange(OutOfRange { index: 3, len: 3 });
    assert_eq!(array.get(3), Err(missing));
    assert_eq!(array.set(3, 0), Err(missing));
    assert_eq!(array.update(3, |_| panic!("called")), Err::<(), _>(missing));
    assert_eq!(missing.to_string(), "index 3 is out of range of an array of 3");

    let beyond = ArrayError::RangeOutOfRange { start: 2, end: 4, len: 3 };
    assert_eq!(array.read(2..4), Err(beyond));
    assert_eq!(array.write(2..4, &[0, 0]), Err(beyond));
    assert_eq!(array.read_into(2..4, &mut [0, 0]), Err(beyond));
    assert_eq!(beyond.to_string(), "range 2..4 is out of range of an array of 3");
    assert!(array.read(..=usize::MAX).is_err());

    let mismatch = ArrayError::LengthMismatch { range: 2, slice: 3 };
    assert_eq!(array.write(1.., &[0; 3]), Err(mismatch));
    assert_eq!(array.read_into(1.., &mut [0; 3]), Err(mismatch));
    assert_eq!(array.to_vec(), Ok(vec![1, 2, 3]), "unchanged");
}

#[test]
fn an_array_can_be_empty() {
    for array in [Array::<f64>::new(&[]).unwrap(), Array::zeroed(0).unwrap()] {
        assert!(array.is_empty());
        assert_eq!(array.to_vec(), Ok(vec![]));
        assert_eq!(array.read(..), Ok(vec![]));
        assert_eq!(array.write(0..0, &[]), Ok(()));
        assert!(array.get(0).is_err());
        assert!(array.lock().unwrap().is_empty());
    }
    assert!(Array::<[u8; 3]>::zeroed(0).unwrap().set(0, [1; 3]).is_err());
}

#[test]
fn a_length_that_overflows_is_an_error() {
    for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
        let error = Array::<u64>::zeroed(len).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert!(Array::<[u8; 3]>::zeroed(len).is_err());
    }
    assert_eq!(Array::<()>::zeroed(usize::MAX).unwrap().len(), usize::MAX, "nothing takes no room");
}

#[test]
fn debug_shows_the_data_or_who_holds_it() {
    let value = Value::new(5i32).unwrap();
    assert_eq!(format!("{value:?}"), "Value { value: 5, poison: None, .. }");
    let guard = value.lock().unwrap();
    assert_eq!(format!("{guard:?} {guard}"), "5 5");
    let held = format!("{value:?}");
    let pid = std::process::id();
    assert_eq!(held, format!("Value {{ value: <locked>, holder: Some({pid}), poison: None, .. }}"));

    let array = Array::new(&[1u8, 2]).unwrap();
    assert_eq!(format!("{array:?}"), "Array { elements: [1, 2], poison: None, .. }");
    let guard = array.lock().unwrap();
    assert_eq!(format!("{guard:?}"), "[1, 2]");
    assert!(format!("{array:?}").contains("<locked>"));
}

#[test]
fn handles_are_send_and_sync_and_guards_are_sync() {
    fn both<T: Send + Sync>() {}
    fn sync<T: Sync>() {}
    both::<Value<u8>>();
    both::<Array<[f64; 3]>>();
    sync::<ValueGuard<'_, u8>>();
    sync::<ArrayGuard<'_, u8>>();
}

#[test]
fn the_memory_is_named_after_what_it_is() {
    // Types that no other test in this file uses.
    let (value, array) = (Value::new(0i16).unwrap(), Array::new(&[0u32]).unwrap());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("polyproc:value:h"), "{maps}");
    assert!(maps.contains("polyproc:array:I"), "{maps}");
    drop((value, array));
}
