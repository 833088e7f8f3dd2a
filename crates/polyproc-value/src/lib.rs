//! Typed values and arrays in shared memory, locked or atomic, for the type codes b B h H i I l L f d and any Pod type.
