//! [`check`]: runs a model. The models of `axdevice` use this file too.

#[cfg(loom)]
pub(super) use loom::thread;
#[cfg(not(loom))]
pub(super) use std::thread;

/// The executions that loom explores.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(loom), expect(dead_code, reason = "real threads have no bounds"))]
pub(super) enum Bound {
    /// Every execution.
    Unbounded,
    /// Every execution with at most this number of preemptions.
    Preemptions(usize),
}

/// Explores `model`, and checks that there were at least `at_least` executions. A model with a wrong
/// setup ends after a few executions and proves nothing.
#[cfg(loom)]
pub(super) fn check(
    name: &str,
    at_least: usize,
    bound: Bound,
    model: impl Fn() + Send + Sync + 'static,
) {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    let executions = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = match bound {
        Bound::Unbounded => None,
        Bound::Preemptions(n) => Some(n),
    };
    let counter = executions.clone();
    let start = std::time::Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        model();
    });
    let (executions, seconds) = (executions.load(Relaxed), start.elapsed().as_secs_f32());
    println!("{name}: {executions} executions, {bound:?}, {seconds:.1} s");
    assert!(
        executions >= at_least,
        "{name}: {executions} executions, expected at least {at_least}"
    );
}

/// Runs `model` with real threads.
#[cfg(not(loom))]
pub(super) fn check(
    _name: &str,
    _at_least: usize,
    _bound: Bound,
    model: impl Fn() + Send + Sync + 'static,
) {
    // One run under Miri, where each seed is a run. Fewer runs if every step is slow.
    const RUNS: usize = match option_env!("BUSMAP_FEW_ROUNDS") {
        _ if cfg!(miri) => 1,
        Some(_) => 100,
        None => 300,
    };
    (0..RUNS).for_each(|_| model());
}
