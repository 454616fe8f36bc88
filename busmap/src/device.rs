//! [`Device`], the unit of registration, and [`DeviceId`], which identifies one registration.

use core::{fmt, num::NonZeroU64};

use crate::{
    bus::{Bus, Family, Handlers, On, PerBus},
    sync::{Arc, AtomicU64, Ordering, UNIQUE},
};

/// A device to be registered: at most one handler for each bus, and a tag.
///
/// It owns no addresses by itself. Any number of spans can be mapped to it, on the buses for which it has a
/// handler.
pub struct Device<F: Handlers> {
    pub(crate) handlers: PerBus<HandlerOf<F>>,
    pub(crate) tag: F::Tag,
}

/// The family of handlers.
pub(crate) struct HandlerOf<F>(F);

impl<F: Handlers> Family for HandlerOf<F> {
    type Of<K: Bus> = Option<Arc<On<F, K>>>;
}

impl<F: Handlers> Device<F> {
    /// A device without handlers. The compiler cannot infer `F`: write `Device::<F>::new(tag)`.
    pub fn new(tag: F::Tag) -> Self {
        let handlers = PerBus {
            mmio: None,
            port: None,
            sys_reg: None,
        };
        Self { handlers, tag }
    }

    /// The same device with `handler` for accesses on bus `K`.
    #[must_use]
    pub fn on<K: Bus>(mut self, handler: Arc<On<F, K>>) -> Self {
        *K::of_mut(&mut self.handlers) = Some(handler);
        self
    }

    /// The handler of accesses on bus `K`.
    pub fn handler<K: Bus>(&self) -> Option<&Arc<On<F, K>>> {
        K::of(&self.handlers).as_ref()
    }

    /// The tag.
    pub fn tag(&self) -> &F::Tag {
        &self.tag
    }

    /// The handler of accesses on bus `K`. The tag and the other handlers are dropped.
    pub fn into_handler<K: Bus>(mut self) -> Option<Arc<On<F, K>>> {
        K::of_mut(&mut self.handlers).take()
    }

    /// The tag. The handlers are dropped.
    pub fn into_tag(self) -> F::Tag {
        self.tag
    }
}

impl<F: Handlers<Tag: Clone>> Clone for Device<F> {
    fn clone(&self) -> Self {
        let handlers = PerBus {
            mmio: self.handlers.mmio.clone(),
            port: self.handlers.port.clone(),
            sys_reg: self.handlers.sys_reg.clone(),
        };
        Self {
            handlers,
            tag: self.tag.clone(),
        }
    }
}

impl<F: Handlers> fmt::Debug for Device<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("mmio", &self.handlers.mmio.is_some())
            .field("port", &self.handlers.port.is_some())
            .field("sys_reg", &self.handlers.sys_reg.is_some())
            .finish_non_exhaustive()
    }
}

/// Identifies one registration of a device. It is never reused, and every other registry of the program refuses it.
///
/// Ids of one registry grow in the order in which they are assigned. An id that was assigned for a refused change is
/// skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The first field, so ids compare by registry, then in the order in which they were assigned.
    registry: u64,
    number: NonZeroU64,
}

impl DeviceId {
    /// The number of the registration within its registry. The first is 1.
    pub const fn number(self) -> u64 {
        self.number.get()
    }
}

impl fmt::Display for DeviceId {
    /// `#` and the [number](Self::number).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number)
    }
}

/// The source of a registry's [`DeviceId`]s.
#[derive(Debug)]
pub(crate) struct DeviceIds {
    registry: u64,
    next: AtomicU64,
}

impl DeviceIds {
    pub(crate) fn new() -> Self {
        Self {
            registry: UNIQUE.next(),
            next: AtomicU64::new(0),
        }
    }

    /// An id that was never assigned before.
    ///
    /// `Relaxed`: an id is only ever compared, and the read-modify-write alone makes it unique. The counter does not
    /// wrap: at a billion ids a second that takes 584 years.
    pub(crate) fn next(&self) -> DeviceId {
        DeviceId {
            registry: self.registry,
            number: NonZeroU64::MIN.saturating_add(self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_from_one_on() {
        let ids = DeviceIds::new();
        let (first, second) = (ids.next(), ids.next());
        assert_eq!((first.number(), second.number()), (1, 2));
        assert!(first < second);
        assert_eq!(second.to_string(), "#2");
    }

    #[test]
    fn ids_of_two_registries_differ() {
        let (one, other) = (DeviceIds::new(), DeviceIds::new());
        assert_ne!(one.next(), other.next());
    }
}
