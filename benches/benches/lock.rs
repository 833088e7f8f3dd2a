//! Lock and unlock, uncontended: ours beside `std` and `parking_lot`, and the limit, two atomic instructions.

use polyproc_benches::{Table, is_test, pin_to, scaled, time_each};
use polyproc_mutex::{Mutex, RLock};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use std::hint::black_box;

fn main() {
    pin_to(1);
    let count = scaled(20_000_000);
    let limit = AtomicU32::new(0);
    let std = std::sync::Mutex::new(0u64);
    let parking_lot = parking_lot::Mutex::new(0u64);
    let ours = Mutex::new(0u64).expect("a mutex");
    let reentrant = RLock::new(0u64).expect("a lock");

    Table::new("lock + unlock, uncontended, with an increment")
        .subject("std::sync::Mutex", || time_each(count, || *black_box(&std).lock().unwrap() += 1))
        .subject("polyproc Mutex", || time_each(count, || *black_box(&ours).lock().unwrap() += 1))
        .subject("polyproc RLock, without the increment", || {
            time_each(count, || drop(black_box(&reentrant).lock().unwrap()))
        })
        .subject("parking_lot::Mutex", || time_each(count, || *black_box(&parking_lot).lock() += 1))
        .subject("limit: compare-and-swap + swap", || {
            time_each(count, || {
                let _ = black_box(&limit).compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
                black_box(&limit).swap(0, Ordering::Release);
            })
        })
        .run();

    let total = *ours.lock().unwrap();
    assert_eq!(total, *std.lock().unwrap());
    assert!(is_test() || total >= count);
}
