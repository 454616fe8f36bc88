//! The sizes of tests: smaller where every step is slow.

/// The size of a test on hardware and under emulation, and its size under Miri.
pub const fn size(full: usize, miri: usize) -> usize {
    if cfg!(miri) { miri } else { full }
}

/// As [`size`], with a separate size under emulation: if the environment variable
/// `AXDEVICE_FEW_ROUNDS` is set when the test is built.
pub const fn size_emulated(full: usize, emulated: usize, miri: usize) -> usize {
    match option_env!("AXDEVICE_FEW_ROUNDS") {
        Some(_) => size(emulated, miri),
        None => size(full, miri),
    }
}
