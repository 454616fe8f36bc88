//! What the fuzz targets do: each runs the crate on an input and holds every result against a model.

pub mod config;
mod model;
mod on;
pub mod operations;
mod recorder;
