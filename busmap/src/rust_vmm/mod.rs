//! A front end for the devices of [rust-vmm](https://github.com/rust-vmm/vm-device): any
//! [`DeviceMmio`] or [`DevicePio`], unchanged. With the feature `rust-vmm`, on targets with `std`.
//!
//! [`DeviceMmio`]: https://docs.rs/vm-device/0.1/vm_device/trait.DeviceMmio.html
//! [`DevicePio`]: https://docs.rs/vm-device/0.1/vm_device/trait.DevicePio.html
//!
//! [`IoManager`] is used as `vm_device::device_manager::IoManager` is, with these differences:
//!
//! - Its methods take `&self`. Any thread may register and remove devices at any time, even from inside
//!   a device's handler, while vCPUs access other devices.
//! - A registered device has a [`DeviceId`](crate::DeviceId), with which the methods of [`Registry`](crate::Registry)
//!   move it or map more ranges to it.
//! - A removal returns a [`Removed`](crate::Removed), which reports when the last vCPU has left the
//!   device.
//! - A vCPU may have a handle of its own, a [`Vcpu`](crate::Vcpu), with the same four accesses.
//! - A refusal names the conflicting device, and the error of an access gives the reason.
//!
//! An access may have any number of bytes, and is forwarded whole: the device decides whether it accepts the length. A
//! read that fails leaves the buffer unchanged.
//!
//! # Examples
//!
//! A UART of two ports, which is not [`Sync`] by itself:
//!
//! ```
//! use std::{error::Error, sync::{Arc, Mutex}, thread, time::Duration};
//!
//! use busmap::{
//!     Miss,
//!     rust_vmm::{
//!         AccessError, IoManager,
//!         vm_device::{MutDevicePio, bus::{PioAddress, PioAddressOffset, PioRange}},
//!     },
//! };
//!
//! #[derive(Default)]
//! struct Uart(Vec<u8>);
//!
//! impl MutDevicePio for Uart {
//!     fn pio_read(&mut self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
//!         data.fill(0x60);
//!     }
//!
//!     fn pio_write(&mut self, _: PioAddress, _: PioAddressOffset, data: &[u8]) {
//!         self.0.extend(data);
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     let io = IoManager::new();
//!     let (base, uart) = (PioAddress(0x3f8), Arc::new(Mutex::new(Uart::default())));
//!     io.register_pio(PioRange::new(base, 2)?, uart.clone())?;
//!
//!     thread::scope(|scope| {
//!         scope.spawn(|| {
//!             let mut vcpu = io.vcpu();
//!             vcpu.pio_write(base, b"hi").unwrap();
//!         });
//!     });
//!     assert_eq!(uart.lock().unwrap().0, b"hi");
//!
//!     let removed = io.deregister_pio(base)?.ok_or("no device is there")?;
//!     removed.wait_timeout(Duration::from_secs(1))?;
//!     assert_eq!(io.pio_write(base, b"hi"), Err(AccessError::Miss(Miss::Unmapped)));
//!     Ok(())
//! }
//! ```

mod access;
mod io_manager;

pub use vm_device;

pub use self::{
    access::AccessError,
    io_manager::{IoManager, RustVmm},
};
