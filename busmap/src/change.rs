//! Changes: devices are added and removed, spans mapped, unmapped and moved, one by one or in a
//! [`Batch`].

use alloc::vec::Vec;
use core::fmt;

use crate::{
    bus::{Bus, Handlers},
    device::{Device, DeviceId},
    mapping::Mapping,
    refusal::{Refusal, Refused},
    registry::Registry,
    removed::Removed,
    reserve::{reserve, reserved},
    span::Span,
    sync::{Arc, mutant},
    tables::{Edit, Registration},
};

/// Changes.
///
/// Each of these publishes new tables once, takes no lock, and may be called on many threads at once
/// and from inside any handler, also that of the device in question. None is lost. The new tables
/// cost time and memory in proportion to the number of spans.
///
/// In a registry [with a listener](Self::with_listener) changes wait for each other, and each can also be
/// refused with [`Refusal::Vetoed`] and, if the listener makes it, [`Refusal::Reentrant`].
///
/// An error leaves the registry unchanged.
impl<F: Handlers> Registry<F> {
    /// Registers a device that owns one span. A [batch](Self::batch) registers one with any number of spans, on several
    /// buses, at one instant.
    ///
    /// # Errors
    ///
    /// The device, with the [`Refusal`]: an [overlap](Refusal::Overlap) with another device or with addresses that were
    /// [set aside](Refusal::SetAside), or [no handler](Refusal::NoHandler) for the bus.
    pub fn add<K: Bus>(&self, device: Device<F>, span: Span) -> Result<DeviceId, Refused<F>> {
        let registration = self.registration(device);
        let id = registration.id;
        let published = self.publish_all([
            Edit::Add(registration.clone()),
            Edit::Map(mapping::<K>(id, span)),
        ]);
        match published {
            Ok(_) => Ok(id),
            Err(refusal) => {
                let registration = Arc::into_inner(registration);
                let device = registration.expect("it was not published").device;
                Err(Refused { device, refusal })
            }
        }
    }

    /// Removes a device from all buses at one instant: no access that starts after this has returned reaches it.
    ///
    /// vCPUs may still be inside the device: the returned [`Removed`] reports when the last has left.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`].
    pub fn remove(&self, id: DeviceId) -> Result<Removed<F>, Refusal> {
        let mut removed = self.publish(&[Edit::Remove(id)])?;
        removed.pop().ok_or(Refusal::Unknown { id, bus: None })
    }

    /// Maps one more span to a device.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NoHandler`]; [`Refusal::Overlap`]; [`Refusal::SetAside`].
    pub fn map<K: Bus>(&self, id: DeviceId, span: Span) -> Result<(), Refusal> {
        self.publish(&[Edit::Map(mapping::<K>(id, span))]).map(drop)
    }

    /// Unmaps exactly this span from a device. The device stays registered, even without spans: a PCI BAR whose
    /// decoding is off keeps its id.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NoHandler`]; [`Refusal::NotMapped`].
    pub fn unmap<K: Bus>(&self, id: DeviceId, span: Span) -> Result<(), Refusal> {
        self.publish(&[Edit::Unmap(mapping::<K>(id, span))])
            .map(drop)
    }

    /// Moves one span of a device. No access finds it in both places, or in neither.
    ///
    /// No handler is called, so this is allowed inside the device's own handler, whatever locks that holds. Until
    /// every vCPU has left the old tables, the device may be called with addresses of either span.
    ///
    /// A caller that stores the device's address itself and moves it on several threads must order the calls.
    /// Otherwise a thread with an outdated address could publish last. Here that is an error, since `from` is no
    /// longer the device's; [`remap`](Self::remap) does not detect it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NoHandler`]; [`Refusal::NotMapped`] if `from` is not the
    /// device's; [`Refusal::Overlap`]; [`Refusal::SetAside`].
    pub fn move_to<K: Bus>(&self, id: DeviceId, from: Span, to: Span) -> Result<(), Refusal> {
        self.publish_all([
            Edit::Unmap(mapping::<K>(id, from)),
            Edit::Map(mapping::<K>(id, to)),
        ])
        .map(drop)
    }

    /// Replaces all spans of a device on bus `K` by `to`, as [`move_to`](Self::move_to) does with one span.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NoHandler`]; [`Refusal::NotMapped`] if the device owns no addresses on the bus; [`Refusal::Overlap`]; [`Refusal::SetAside`].
    pub fn remap<K: Bus>(&self, id: DeviceId, to: Span) -> Result<(), Refusal> {
        if mutant("move-by-way-of")
            && let Some(aside) = Span::new(0, 0)
        {
            self.publish(&[Edit::Remap(mapping::<K>(id, aside))])?;
        }
        self.publish(&[Edit::Remap(mapping::<K>(id, to))]).map(drop)
    }

    /// An empty batch of changes.
    pub fn batch(&self) -> Batch<'_, F> {
        Batch {
            registry: self,
            edits: Vec::new(),
        }
    }

    /// Publishes all the changes that `record` records at one instant on all buses. If `record` fails or unwinds, or the
    /// [batch](Batch::publish) is refused, publishes none of them.
    ///
    /// `record` runs once. Returns its result, and the removed devices in the order of the removals.
    ///
    /// # Errors
    ///
    /// The error of `record`, or the [`Refusal`] of the batch. The devices to be added are dropped then, except for
    /// the caller's own counts.
    ///
    /// If `record` ends in `Ok`, it must name the error type: `Ok::<_, Refusal>(id)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use busmap::{DeviceId, Handlers, Port, Refusal, Registry, Span};
    ///
    /// /// Swaps the spans of two devices, without a spare one.
    /// fn swap<F: Handlers>(
    ///     registry: &Registry<F>,
    ///     (a, at): (DeviceId, Span),
    ///     (b, bt): (DeviceId, Span),
    /// ) -> Result<(), Refusal> {
    ///     registry.update(|batch| {
    ///         batch.move_to::<Port>(a, at, bt)?;
    ///         batch.move_to::<Port>(b, bt, at)
    ///     })?;
    ///     Ok(())
    /// }
    /// ```
    pub fn update<T, E: From<Refusal>>(
        &self,
        record: impl FnOnce(&mut Batch<'_, F>) -> Result<T, E>,
    ) -> Result<(T, Vec<Removed<F>>), E> {
        let mut batch = self.batch();
        let value = record(&mut batch)?;
        Ok((value, batch.publish()?))
    }

    /// The registration of a device, with a new id.
    fn registration(&self, device: Device<F>) -> Arc<Registration<F>> {
        Arc::new(Registration {
            id: self.ids.next(),
            device,
        })
    }

    /// Publishes tables with the edits made, or none of them, and drops the edits.
    fn publish_all<const N: usize>(&self, edits: [Edit<F>; N]) -> Result<Vec<Removed<F>>, Refusal> {
        self.publish(&edits)
    }

    /// Publishes tables with all of `edits` made, or none, and frees what has been replaced. Returns
    /// the removed devices.
    fn publish(&self, edits: &[Edit<F>]) -> Result<Vec<Removed<F>>, Refusal> {
        let removals = edits.iter().filter(|edit| matches!(edit, Edit::Remove(_)));
        let mut removed = reserved(removals.count())?;
        let mut taken = Vec::new();
        self.publish_tables(|tables| {
            let edited = tables.edited(edits, &self.aside)?;
            taken = edited.removed;
            Ok::<_, Refusal>(edited.tables)
        })?;
        let retired = self.tables.retired();
        removed.extend(taken.into_iter().map(|of| Removed::new(of, retired)));
        self.tables.reclaim();
        Ok(removed)
    }
}

fn mapping<K: Bus>(id: DeviceId, span: Span) -> Mapping {
    Mapping {
        id,
        bus: K::ID,
        span,
    }
}

/// Changes that are recorded now and made together, or not at all.
///
/// Recording fails only for want of memory. Whether a device is there, and what is to be mapped fits,
/// is seen when the batch is published, and judged by the *result*: what a batch unmaps or removes is
/// free for all that it maps, in whatever order the two are recorded.
///
/// A batch of many changes looks each device up by itself: its time grows with the number of changes
/// times the number of devices.
#[must_use = "a batch that is not published changes nothing"]
pub struct Batch<'r, F: Handlers> {
    registry: &'r Registry<F>,
    edits: Vec<Edit<F>>,
}

impl<F: Handlers> Batch<'_, F> {
    /// Records a device, which gets its id, and owns no addresses yet.
    pub fn add(&mut self, device: Device<F>) -> Result<DeviceId, Refusal> {
        let registration = self.registry.registration(device);
        let id = registration.id;
        self.record([Edit::Add(registration)])?;
        Ok(id)
    }

    /// Records a device that owns a span.
    pub fn add_at<K: Bus>(&mut self, device: Device<F>, span: Span) -> Result<DeviceId, Refusal> {
        let registration = self.registry.registration(device);
        let id = registration.id;
        self.record([Edit::Add(registration), Edit::Map(mapping::<K>(id, span))])?;
        Ok(id)
    }

    /// Records that a device is removed: see [`Registry::remove`].
    pub fn remove(&mut self, id: DeviceId) -> Result<(), Refusal> {
        self.record([Edit::Remove(id)])
    }

    /// Records that a device gets one more span: see [`Registry::map`].
    pub fn map<K: Bus>(&mut self, id: DeviceId, span: Span) -> Result<(), Refusal> {
        self.record([Edit::Map(mapping::<K>(id, span))])
    }

    /// Records that a device loses a span: see [`Registry::unmap`]. It may be one that was recorded
    /// before.
    pub fn unmap<K: Bus>(&mut self, id: DeviceId, span: Span) -> Result<(), Refusal> {
        self.record([Edit::Unmap(mapping::<K>(id, span))])
    }

    /// Records that a span of a device moves: see [`Registry::move_to`].
    pub fn move_to<K: Bus>(&mut self, id: DeviceId, from: Span, to: Span) -> Result<(), Refusal> {
        self.record([
            Edit::Unmap(mapping::<K>(id, from)),
            Edit::Map(mapping::<K>(id, to)),
        ])
    }

    /// Records that a device has one span on bus `K` in place of all that it has there: see
    /// [`Registry::remap`].
    pub fn remap<K: Bus>(&mut self, id: DeviceId, to: Span) -> Result<(), Refusal> {
        self.record([Edit::Remap(mapping::<K>(id, to))])
    }

    /// Publishes all recorded changes at one instant on all buses, or none of them. Returns the removed devices in
    /// the order of the removals.
    ///
    /// If another change is published first, the recorded ones are applied again to its result.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] of the first recorded change that cannot be made. An overlap is reported only if there is no
    /// other reason. The devices to be added are dropped then, except for the caller's own counts.
    pub fn publish(self) -> Result<Vec<Removed<F>>, Refusal> {
        if mutant("update-in-steps") {
            for edit in &self.edits {
                drop(self.registry.publish(core::slice::from_ref(edit))?);
            }
            return Ok(Vec::new());
        }
        self.registry.publish(&self.edits)
    }

    /// Records all of these, or none.
    fn record<const N: usize>(&mut self, edits: [Edit<F>; N]) -> Result<(), Refusal> {
        reserve(&mut self.edits, N)?;
        self.edits.extend(edits);
        Ok(())
    }
}

impl<F: Handlers> fmt::Debug for Batch<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("edits", &self.edits.len())
            .finish_non_exhaustive()
    }
}
