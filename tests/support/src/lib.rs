//! The code that the tests, the fuzz targets and the benches of axdevice share.
//!
//! - [`Bus`]: the three buses under one trait: a test is written once for all of them;
//! - [`Device`]: a device made of closures. [`device()`], [`bare_device`], [`ranged`] and [`mortal`] make the devices
//!   that most tests need; [`Echo`] and [`Recorder`] are devices with named types;
//! - [`registry()`] and [`shared_registry`], and the devices that they list;
//! - [`size()`]: the size of a test on hardware, under emulation and under Miri;
//! - [`hammer()`]: many vCPUs that access one device as often as they can;
//! - `host`, on aarch64 and riscv64: the hypervisor that the built-in interrupt controllers call.
//!   `use support as _;` links it.

mod bus;
mod device;
mod entry;
mod hammer;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub mod host;
mod recorder;
mod registry;
mod sets;
mod size;

pub use bus::{Added, Bus, Listed, Piece, WIDTHS, carried, extent, floating, items, pieces};
pub use device::{Access, Device, Echo, OnDrop, bare_device, device, mortal, ranged};
pub use entry::entry;
pub use hammer::{assert_fair, hammer};
pub use recorder::{Call, Journal, Recorder, answer, read_of};
pub use registry::{device_of, owners, registry, shared_registry, span};
pub use sets::Sets;
pub use size::{size, size_emulated};
