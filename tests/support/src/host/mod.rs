//! A host for the interrupt controllers that axdevice builds: it implements the functions of the hypervisor
//! that they call, `axvisor_api`, over a machine of plain memory.
//!
//! A test, an example or a program for aarch64 or riscv64 that builds these devices must link some
//! hypervisor. `use support as _;` links this one.
//!
//! The physical memory of the machine is the memory of the process, at the same addresses, except that the addresses of
//! [`machine`] are the registers of the host's interrupt controllers. These are memory too. There is one machine in a
//! process: a test that sets its registers holds [`machine::exclusive`].

mod hypervisor;
pub mod machine;
mod meeting;
pub mod memory;
#[cfg(all(target_os = "linux", not(miri)))]
pub mod privileged;
pub mod time;

pub use hypervisor::take_injected;
pub use meeting::{Meeting, meet_at};
pub use memory::{get, is_whole, registers, set};
