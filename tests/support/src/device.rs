//! [`Device`]: a device made of closures.

use std::{fmt, sync::Arc, thread};

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::bus::Bus;

/// An access, as the device gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The address.
    pub at: usize,
    /// The width.
    pub width: AccessWidth,
    /// The value that is written; `None` for a read.
    pub written: Option<usize>,
}

impl Access {
    pub(crate) fn read<R: Bus>(addr: R::Addr, width: AccessWidth) -> Self {
        let (at, written) = (R::place(addr), None);
        Self { at, width, written }
    }

    pub(crate) fn write<R: Bus>(addr: R::Addr, width: AccessWidth, value: usize) -> Self {
        let (at, written) = (R::place(addr), Some(value));
        Self { at, width, written }
    }
}

/// A device made of its state and of two closures, which get the state: one returns the range, the other handles an
/// access. For a write, the value that the second returns is dropped.
///
/// The state, such as an [`OnDrop`], determines the action when the device is dropped.
pub struct Device<S, G, F> {
    state: S,
    range: G,
    act: F,
}

impl<S, G, F> Device<S, G, F> {
    /// A device.
    pub const fn new<R>(state: S, range: G, act: F) -> Self
    where
        G: Fn(&S) -> R,
        F: Fn(&S, Access) -> AxResult<usize>,
    {
        Self { state, range, act }
    }

    /// The state.
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// The state, to change it.
    pub const fn state_mut(&mut self) -> &mut S {
        &mut self.state
    }
}

impl<S: fmt::Debug, G, F> fmt::Debug for Device<S, G, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut device = f.debug_struct("Device");
        device.field("state", &self.state).finish_non_exhaustive()
    }
}

impl<R, S, G, F> BaseDeviceOps<R> for Device<S, G, F>
where
    R: Bus,
    S: 'static,
    G: Fn(&S) -> R + 'static,
    F: Fn(&S, Access) -> AxResult<usize> + 'static,
{
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        (self.range)(&self.state)
    }

    #[inline]
    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        (self.act)(&self.state, Access::read::<R>(addr, width))
    }

    #[inline]
    fn handle_write(&self, addr: R::Addr, width: AccessWidth, value: usize) -> AxResult {
        (self.act)(&self.state, Access::write::<R>(addr, width, value)).map(drop)
    }
}

/// A device at the addresses `first ..= last` that handles an access with a closure.
pub fn bare_device<R: Bus>(
    first: usize,
    last: usize,
    act: impl Fn(Access) -> AxResult<usize> + 'static,
) -> impl BaseDeviceOps<R> {
    let range = move |_: &()| R::covering(first, last);
    Device::new((), range, move |_: &(), access| act(access))
}

/// The same, in an `Arc`.
pub fn device<R: Bus>(
    first: usize,
    last: usize,
    act: impl Fn(Access) -> AxResult<usize> + 'static,
) -> Arc<impl BaseDeviceOps<R>> {
    Arc::new(bare_device(first, last, act))
}

/// A device that returns its range from a closure and reads as 1.
pub fn ranged<R: Bus>(range: impl Fn() -> R + 'static) -> Arc<impl BaseDeviceOps<R>> {
    let range = move |_: &()| range();
    Arc::new(Device::new((), range, |_: &(), _| Ok(1)))
}

/// Calls a closure when it is dropped, unless the thread panics: in a failed test, a second panic would end all tests.
pub struct OnDrop<F: Fn()>(pub F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if !thread::panicking() {
            (self.0)();
        }
    }
}

impl<F: Fn()> fmt::Debug for OnDrop<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDrop").finish_non_exhaustive()
    }
}

/// A device at the addresses `first ..= last` that reads as the address, and calls a closure when it is
/// dropped.
pub fn mortal<R: Bus>(
    first: usize,
    last: usize,
    dies: impl Fn() + 'static,
) -> Arc<impl BaseDeviceOps<R>> {
    let range = move |_: &_| R::covering(first, last);
    let echo = |_: &_, access: Access| Ok(access.at);
    Arc::new(Device::new(OnDrop(dies), range, echo))
}

/// A device that reads as the address, in all bits, regardless of the width.
#[derive(Debug)]
pub struct Echo<R>(pub R);

impl<R: Bus> Echo<R> {
    /// A device at the addresses `first ..= last`.
    pub fn new(first: usize, last: usize) -> Arc<Self> {
        Arc::new(Self(R::covering(first, last)))
    }
}

impl<R: Bus> BaseDeviceOps<R> for Echo<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        self.0
    }

    fn handle_read(&self, addr: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(R::place(addr))
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}
