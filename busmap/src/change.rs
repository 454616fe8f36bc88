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
/// Each of these methods publishes new tables once, and takes no lock. It may be called on many threads at once, and
/// from inside any handler, even that of the device that it changes. No change is lost. The new tables cost time and
/// memory in proportion to the number of spans.
///
/// In a registry [with a listener](Self::with_listener) changes wait for each other. A change can then also be refused
/// with [`Refusal::Vetoed`], or with [`Refusal::Reentrant`] if the listener makes it.
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
    /// vCPUs may still be inside the device: the returned [`Removed`] reports when the last vCPU has left.
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

    /// Moves one span of a device. For every access the device is at exactly one of the two places.
    ///
    /// No handler is called, so this is allowed inside the device's own handler, regardless of the locks that it holds.
    /// Until every vCPU has left the old tables, the device may be called with addresses of either span.
    ///
    /// A caller that stores the device's address itself and moves it on several threads must order the calls. Otherwise
    /// a thread with an outdated address could publish last. Here that is an error, because the device no longer owns
    /// `from`; [`remap`](Self::remap) does not detect it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NoHandler`]; [`Refusal::NotMapped`] if the device does not own `from`;
    /// [`Refusal::Overlap`]; [`Refusal::SetAside`].
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
    /// The error of `record`, or the [`Refusal`] of the batch. The devices to be added are dropped then; handlers of
    /// which the caller holds an `Arc` stay alive.
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

    /// Publishes tables with all of `edits` made, or none, and frees replaced tables that no thread holds. Returns the
    /// removed devices.
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

/// Recorded changes, which are published together or not at all.
///
/// Recording fails only without memory. Publishing checks whether the devices exist and whether the *result* is free of
/// overlaps: addresses that a batch unmaps, or whose device it removes, are free for all its mappings, regardless of
/// the order of recording.
///
/// A batch looks up the device of each change separately: its time grows with the number of changes times the number of
/// devices.
#[must_use = "a batch that is not published changes nothing"]
pub struct Batch<'r, F: Handlers> {
    registry: &'r Registry<F>,
    edits: Vec<Edit<F>>,
}

impl<F: Handlers> Batch<'_, F> {
    /// Records the addition of a device that owns no addresses yet. Returns its id.
    pub fn add(&mut self, device: Device<F>) -> Result<DeviceId, Refusal> {
        let registration = self.registry.registration(device);
        let id = registration.id;
        self.record([Edit::Add(registration)])?;
        Ok(id)
    }

    /// Records the addition of a device that owns a span. Returns its id.
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

    /// Records that a device loses a span: see [`Registry::unmap`]. The span may be one that the batch has recorded.
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

    /// Records that `to` replaces all spans of a device on bus `K`: see [`Registry::remap`].
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
    /// other reason. The devices to be added are dropped then; handlers of which the caller holds an `Arc` stay alive.
    pub fn publish(self) -> Result<Vec<Removed<F>>, Refusal> {
        if mutant("update-in-steps") {
            for edit in &self.edits {
                drop(self.registry.publish(core::slice::from_ref(edit))?);
            }
            return Ok(Vec::new());
        }
        self.registry.publish(&self.edits)
    }

    /// Records all of `edits`, or none.
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
