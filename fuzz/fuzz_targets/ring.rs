//! A peer that writes anything into a pipe's ring: `cargo fuzz run ring`, or `fuzz/run` without installing anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    #[cfg(fuzzing)]
    polyproc_pipe::fuzz::ring(script);
    #[cfg(not(fuzzing))]
    compile_error!("needs --cfg fuzzing: see fuzz/run");
});
