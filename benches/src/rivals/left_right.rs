//! A sorted table in `left-right`: one copy for the readers and one for the writer. When the writer
//! exchanges the copies, it waits for the readers.

use std::sync::{Arc, Mutex};

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use busmap::Span;
use left_right::{Absorb, ReadHandle, ReadHandleFactory, WriteHandle};

use crate::{
    bus::Nothing,
    registry::{Changeable, Registry, Search},
    table::{Device, Table},
};

/// The operation that adds a device.
struct Add(Arc<Device<GuestPhysAddrRange>>);

impl Absorb<Add> for Table {
    fn absorb_first(&mut self, add: &mut Add, _: &Self) {
        self.insert(add.0.clone());
    }

    fn absorb_second(&mut self, add: Add, _: &Self) {
        self.insert(add.0);
    }

    fn sync_with(&mut self, first: &Self) {
        self.clone_from(first);
    }
}

pub(crate) struct LeftRight {
    writer: Mutex<WriteHandle<Table, Add>>,
    readers: ReadHandleFactory<Table>,
}

impl Registry<GuestPhysAddrRange> for LeftRight {
    const NAME: &'static str = "left-right";

    type Vcpu<'r> = ReadHandle<Table>;

    fn with(spans: &[Span]) -> Self {
        let (writer, reader) = left_right::new_from_empty(Table::with(spans));
        let readers = reader.factory();
        let writer = Mutex::new(writer);
        Self { writer, readers }
    }

    fn vcpu(&self) -> ReadHandle<Table> {
        self.readers.handle()
    }
}

impl Search for ReadHandle<Table> {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        let table = self
            .enter()
            .expect("the writer lives as long as its readers");
        table.read(addr)
    }
}

impl Changeable for LeftRight {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        let mut writer = self.writer.lock().expect("no holder panics");
        writer.append(Add(Arc::new(device)));
        writer.publish();
    }
}
