//! What this crate is compared with, each as its authors would use it.

pub(crate) mod cache;
pub(crate) mod direct;
pub(crate) mod epoch;
pub(crate) mod io_manager;
pub(crate) mod left_right;
pub(crate) mod published;
pub(crate) mod spin;
pub(crate) mod tree;
