//! Lock, change, unlock, uncontended: ours beside `std` and `parking_lot`, and the limit, two atomic instructions.

use polyproc::{Mutex, RLock, Value};
use polyproc_benches::{Table, pin_to, scaled, time_each};
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
    let value = Value::new(0u64).expect("a value");
    let (outer, inner) = (Mutex::new(()).expect("a mutex"), Mutex::new(0u64).expect("a mutex"));

    Table::new("lock, increment, unlock, uncontended")
        .subject("std::sync::Mutex", || time_each(count, || *black_box(&std).lock().unwrap() += 1))
        .subject("polyproc Mutex", || time_each(count, || *black_box(&ours).lock().unwrap() += 1))
        .subject("polyproc Value::update", || {
            time_each(count, || black_box(&value).update(|number| *number += 1).unwrap())
        })
        .subject("polyproc Value::lock", || time_each(count, || *black_box(&value).lock().unwrap() += 1))
        .subject("polyproc RLock, lock and unlock only", || {
            time_each(count, || drop(black_box(&reentrant).lock().unwrap()))
        })
        .subject("polyproc Mutex, while another is held", || {
            let _outer = outer.lock().unwrap();
            time_each(count, || *black_box(&inner).lock().unwrap() += 1)
        })
        .subject("parking_lot::Mutex", || time_each(count, || *black_box(&parking_lot).lock() += 1))
        .subject("limit: compare-and-swap, swap", || {
            time_each(count, || {
                let _ = black_box(&limit).compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
                black_box(&limit).swap(0, Ordering::Release);
            })
        })
        .run();

    let total = *std.lock().unwrap();
    for other in
        [*ours.lock().unwrap(), *inner.lock().unwrap(), *parking_lot.lock(), value.get().unwrap() / 2]
    {
        assert_eq!(other, total);
    }
}
