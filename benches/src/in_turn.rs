//! Timing several things in one run.

use std::time::Instant;

/// Accesses in a batch: few enough that most batches are not interrupted.
const BATCH: u32 = 500;

/// The nanoseconds of one access of each of `N` kinds. `access(i)` makes one access of kind `i`. The kinds alternate
/// for `batches` batches, and the best batch of each kind counts, because nothing has disturbed it.
pub fn in_turn<const N: usize>(batches: u32, access: impl Fn(usize)) -> [f64; N] {
    let batch = |i| {
        let start = Instant::now();
        (0..BATCH).for_each(|_| access(i));
        start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
    };
    let mut best = [f64::MAX; N];
    for _ in 0..batches {
        for (i, best) in best.iter_mut().enumerate() {
            *best = best.min(batch(i));
        }
    }
    best
}
