//! What a handle costs: time, memory, descriptors; alone, and in an arena.

use polyproc::{Arena, Value};
use polyproc_benches::{Table, is_test, pin_to, scaled, time_each};

/// Values in the arena.
const MANY: usize = 100_000;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn in_arena(count: usize) -> f64 {
    let arena = Arena::new(count * 128).expect("an arena");
    let before = descriptors();
    let mut values = Vec::with_capacity(count);
    let nanos = time_each(count as u64, || values.push(Value::new_in(&arena, 7i32).expect("a value")));
    assert_eq!(descriptors(), before);
    assert_eq!(arena.used(), count * 128, "128 bytes each");
    assert_eq!(values[count - 1].get().unwrap(), 7);
    nanos
}

fn main() {
    pin_to(1);
    let before = descriptors();
    let value = Value::new(1i32).expect("a value");
    let after = descriptors();
    let region = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    let line = region.lines().find(|line| line.contains("polyproc:value")).expect("the mapping").to_owned();
    let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
    let size = u64::from_str_radix(to, 16).unwrap() - u64::from_str_radix(from, 16).unwrap();
    println!("a Value<i32>: {size} bytes mapped, {} descriptor", after - before);
    assert_eq!((size, after - before), (4096, 1));
    assert_eq!(value.get().unwrap(), 1);

    let count = scaled(2_000);
    let many = if is_test() { 100 } else { MANY };
    Table::new("creating a Value<i32>, and dropping it")
        .subject("a region of its own", || time_each(count, || drop(Value::new(7i32).expect("a value"))))
        .subject("one of 100,000 in an arena, not dropped", || in_arena(many))
        .run();
}
