//! The checker's atomics, with a step before each access.

use super::{checker, step};
pub use core::sync::atomic::Ordering;

/// The checker's fence.
pub fn fence(ordering: Ordering) {
    checker::sync::atomic::fence(ordering);
}

/// The checkers do not model the compiler.
pub fn compiler_fence(_: Ordering) {}

macro_rules! atomic {
    ($name:ident, $number:ty) => {
        /// An atomic of the checker.
        #[derive(Debug)]
        pub struct $name(pub(super) checker::sync::atomic::$name);

        impl Default for $name {
            fn default() -> $name {
                $name::new(0)
            }
        }

        #[allow(missing_docs, clippy::missing_errors_doc)]
        impl $name {
            pub fn new(value: $number) -> $name {
                $name(checker::sync::atomic::$name::new(value))
            }
            pub fn load(&self, ordering: Ordering) -> $number {
                step();
                self.0.load(ordering)
            }
            pub fn store(&self, value: $number, ordering: Ordering) {
                step();
                self.0.store(value, ordering);
            }
            pub fn swap(&self, value: $number, ordering: Ordering) -> $number {
                step();
                self.0.swap(value, ordering)
            }
            pub fn fetch_add(&self, value: $number, ordering: Ordering) -> $number {
                step();
                self.0.fetch_add(value, ordering)
            }
            pub fn fetch_sub(&self, value: $number, ordering: Ordering) -> $number {
                step();
                self.0.fetch_sub(value, ordering)
            }
            pub fn fetch_or(&self, value: $number, ordering: Ordering) -> $number {
                step();
                self.0.fetch_or(value, ordering)
            }
            pub fn fetch_and(&self, value: $number, ordering: Ordering) -> $number {
                step();
                self.0.fetch_and(value, ordering)
            }
            pub fn compare_exchange(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
