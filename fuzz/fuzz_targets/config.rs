//! See [`fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::config::Input| {
    fuzz::config::run(&input);
});
