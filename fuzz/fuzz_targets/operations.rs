//! See [`fuzz::operations`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::operations::Input| {
    fuzz::operations::run(input);
});
