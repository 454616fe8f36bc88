//! The registries that this crate is compared with. Each is used as its authors intend.

pub(crate) mod cache;
pub(crate) mod direct;
pub(crate) mod epoch;
pub(crate) mod io_manager;
pub(crate) mod left_right;
pub(crate) mod published;
pub(crate) mod spin;
pub(crate) mod tree;
