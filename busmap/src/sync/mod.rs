//! The synchronisation primitives that the crate uses: core's, or [loom](https://docs.rs/loom)'s
//! under `cfg(loom)`. No other folder names them: `clippy.toml` disallows it.
//!
//! The types are aliases: the lint would reject every use of a re-export.
#![cfg_attr(
    not(test),
    expect(clippy::disallowed_types, reason = "this is where they are named")
)]

/// The `Arc` of devices. Its type is part of the API, so it is never loom's.
pub(crate) type Arc<T> = alloc::sync::Arc<T>;
/// See [`Arc`].
pub(crate) type Weak<T> = alloc::sync::Weak<T>;

/// Returns a different number for every call in the program.
///
/// It uses `core`'s atomic in a model too, where its order does not matter.
#[derive(Debug)]
pub(crate) struct Unique(core::sync::atomic::AtomicU64);

/// Distinguishes registries.
pub(crate) static UNIQUE: Unique = Unique(core::sync::atomic::AtomicU64::new(1));

impl Unique {
    /// `Relaxed`: a number is only compared, and the read-modify-write alone makes it unique. The
    /// counter does not wrap.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod counting;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
#[cfg_attr(
    not(any(test, target_os = "none", feature = "slot-cell")),
    expect(dead_code, reason = "some are of use to the slot cell only")
)]
mod native;
#[cfg(not(any(loom, target_os = "none")))]
mod sleeping;
#[cfg(all(target_os = "none", not(loom)))]
mod spinning;
#[cfg(loom)]
pub(crate) use self::loom::*;
#[cfg(not(loom))]
pub(crate) use self::native::*;
#[cfg(not(any(loom, target_os = "none")))]
pub(crate) use self::sleeping::*;
#[cfg(all(target_os = "none", not(loom)))]
pub(crate) use self::spinning::*;

/// Whether the crate runs as this mutant, which a model must detect: `.ci/mutants.sh`. Mutants
/// exist only under `cfg(loom)` and `cfg(mutants)`: the environment variable `BUSMAP_MUTANT` names
/// one.
#[cfg(not(any(loom, mutants)))]
#[inline(always)]
pub(crate) const fn mutant(_name: &str) -> bool {
    false
}

#[cfg(any(loom, mutants))]
pub(crate) fn mutant(name: &str) -> bool {
    use std::{env, string::String, sync::LazyLock};

    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| env::var("BUSMAP_MUTANT").ok());
    CHOSEN.as_deref() == Some(name)
}

/// An ordering, which the mutant of that name weakens.
macro_rules! ordering {
    ($strong:ident $(, $name:literal => $weak:ident)+) => {
        $(if $crate::sync::mutant($name) {
            $crate::sync::Ordering::$weak
        } else)+ {
            $crate::sync::Ordering::$strong
        }
    };
}

/// A step, which the mutant of that name leaves out.
macro_rules! step_unless {
    ($name:literal, $step:expr) => {
        if !$crate::sync::mutant($name) {
            $step
        }
    };
}

pub(crate) use {ordering, step_unless};
