//! The synchronisation primitives that the crate uses: core's, or [loom](https://docs.rs/loom)'s
//! under `cfg(loom)`. No other folder names them: `clippy.toml` disallows it.
//!
//! The types are aliases, since the lint would report every use of a re-export.
#![cfg_attr(
    not(test),
    expect(clippy::disallowed_types, reason = "this is where they are named")
)]

/// The reference counter of devices. Its type is part of the API, so it is never loom's.
pub(crate) type Arc<T> = alloc::sync::Arc<T>;

#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
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

/// Whether this mutant of the crate is selected. A model must then fail: see `.ci/mutants.sh`. Mutants exist only under
/// `cfg(loom)` and `cfg(mutants)`, where `AXDEVICE_MUTANT` in the environment names one.
#[cfg(not(any(loom, mutants)))]
#[inline(always)]
pub(crate) const fn mutant(_name: &str) -> bool {
    false
}

#[cfg(any(loom, mutants))]
pub(crate) fn mutant(name: &str) -> bool {
    use std::{env, string::String, sync::LazyLock};

    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| env::var("AXDEVICE_MUTANT").ok());
    CHOSEN.as_deref() == Some(name)
}

/// Returns an ordering, which the mutant of that name weakens.
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
