//! The fuzz targets: each runs the crate on an input and compares every result with a model.

pub mod config;
mod model;
mod on;
pub mod operations;
mod recorder;
