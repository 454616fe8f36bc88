//! See [`axdevice_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: axdevice_fuzz::config::Input| {
    axdevice_fuzz::config::run(&input);
});
