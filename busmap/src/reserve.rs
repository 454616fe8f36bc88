//! Room in vectors, or the refusal of a change.

use alloc::vec::Vec;

use crate::refusal::Refusal;

/// An empty vector with room for exactly `n`.
///
/// # Errors
///
/// [`Refusal::NoMemory`].
pub(crate) fn reserved<T>(n: usize) -> Result<Vec<T>, Refusal> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(n).map_err(|_| Refusal::NoMemory)?;
    Ok(vec)
}

/// Makes room for `n` more.
///
/// # Errors
///
/// [`Refusal::NoMemory`].
pub(crate) fn reserve<T>(vec: &mut Vec<T>, n: usize) -> Result<(), Refusal> {
    vec.try_reserve(n).map_err(|_| Refusal::NoMemory)
}
