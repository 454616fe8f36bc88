//! See [`axdevice_fuzz::operations`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: axdevice_fuzz::operations::Input| {
    axdevice_fuzz::operations::run(input);
});
