//! Pools of two workers at different tasks, and how long it takes to make one of four.

use polyproc::Pool;
use polyproc_benches::is_test;
use polyproc_rivals::adapters::python;
use polyproc_rivals::{Rivals, finish, pool, rival};

/// As many as that, or just a few.
fn few(full: u64) -> u64 {
    if is_test() { (full / 100).max(4) } else { full }
}

/// A table with ours and Python's pool.
fn table(
    title: &str,
    ours: impl FnMut() -> f64 + 'static,
    subject: &'static str,
    numbers: &[u64],
) -> Rivals<'static> {
    let (table, numbers) = (Rivals::new(title).ours("polyproc Pool", ours), numbers.to_vec());
    if !python::is_there() {
        return table;
    }
    table.rival("Python Pool", move || python::run("pool.py", subject, &numbers))
}

/// Adds the other rivals: a subject's function, and its numbers.
macro_rules! others {
    ($table:expr, $subject:ident, $($number:expr),+) => {{
        let table = rival!($table, "rayon", "rayon, threads", move || pool::$subject::<rayon::ThreadPool>($($number),+));
        rival!(table, "procspawn", "procspawn", move || pool::$subject::<procspawn::Pool>($($number),+))
    }};
}

fn main() {
    polyproc::init();
    #[cfg(feature = "procspawn")]
    procspawn::init();
    let count = few(100_000);
    let large = table(
        "map of a square over 100,000 numbers, 2 workers, a number",
        move || pool::map::<Pool>(count, None),
        "map",
        &[count, 0],
    );
    others!(large, map, count, None).run();

    let count = few(10_000);
    let single = table(
        "map of a square in chunks of 1, 2 workers, a number",
        move || pool::map::<Pool>(count, Some(1)),
        "map",
        &[count, 1],
    );
    others!(single, map, count, Some(1)).run();

    let count = few(5_000);
    others!(
        table("apply, there and back, 2 workers", move || pool::apply::<Pool>(count), "apply", &[count]),
        apply,
        count
    )
    .run();

    let count = few(2_000);
    let naps =
        table("2,000 tasks of 1 ms, 2 workers, a task", move || pool::naps::<Pool>(count), "doze", &[count])
            .rival("limit: two threads that sleep", move || pool::ideal_naps(count));
    others!(naps, naps, count).run();

    let count = few(500);
    let payloads = table(
        "500 payloads of 1 MiB there and back, 2 workers, a payload",
        move || pool::payloads::<Pool>(count, false),
        "large",
        &[count, 0],
    );
    others!(payloads, payloads, count, false).run();

    let kept = table(
        "500 payloads of 1 MiB there and back, all kept, 2 workers, a payload",
        move || pool::payloads::<Pool>(count, true),
        "large",
        &[count, 1],
    );
    others!(kept, payloads, count, true).run();

    let count = if is_test() { 1 } else { 10 };
    others!(
        table(
            "make a pool of 4, have it do a task, close it",
            move || pool::make::<Pool>(count),
            "make",
            &[count]
        ),
        make,
        count
    )
    .run();
    finish();
}
