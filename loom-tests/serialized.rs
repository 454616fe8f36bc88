//! `Serialized`: one thread at a time is in the device, and a second entry says that it is busy.

use std::sync::{Arc, OnceLock, Weak};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::{Bound::Unbounded, check, nodes::Watched, thread};
use crate::Serialized;

const WIDTH: AccessWidth = AccessWidth::Byte;

/// Counts its writes in memory that is watched for races.
struct Counter(Watched);

impl BaseDeviceOps<PortRange> for Counter {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(0), Port(0))
    }

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(self.0.read())
    }

    fn handle_write(&self, _: Port, _: AccessWidth, val: usize) -> AxResult {
        self.0.write(self.0.read() + val);
        Ok(())
    }
}

#[test]
fn writers_exclude_each_other() {
    check("two in a serialized device", 3, Unbounded, || {
        let device = Arc::new(Serialized::new(Counter(Watched::new(0))));
        let write = |device: &Serialized<Counter>| device.handle_write(Port(0), WIDTH, 1);
        let other = device.clone();
        let other = thread::spawn(move || write(&other));
        let results = [write(&device), other.join().expect("the other panicked")];
        let made = results.iter().filter(|result| result.is_ok()).count();
        assert!(made >= 1);
        assert!(
            results
                .iter()
                .flat_map(|r| r.err())
                .all(|e| e == AxError::ResourceBusy)
        );
        assert_eq!(device.handle_read(Port(0), WIDTH), Ok(made));
    });
}

/// Enters itself again.
#[derive(Default)]
struct Reenters(OnceLock<Weak<Serialized<Reenters>>>);

impl BaseDeviceOps<PortRange> for Reenters {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(0), Port(0))
    }

    fn handle_read(&self, port: Port, width: AccessWidth) -> AxResult<usize> {
        let this = self.0.get().and_then(Weak::upgrade).expect("it is there");
        match this.handle_read(port, width) {
            Err(AxError::ResourceBusy) => Ok(7),
            other => panic!("entered again: {other:?}"),
        }
    }

    fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

#[test]
fn a_second_entry_by_itself_is_busy() {
    check("re-entry", 5, Unbounded, || {
        let mut device = Serialized::new(Reenters::default());
        let link = Arc::new_cyclic(|this| {
            let _ = device.get_mut().0.set(this.clone());
            device
        });
        let other = link.clone();
        let other = thread::spawn(move || other.handle_write(Port(0), WIDTH, 0));
        let read = link.handle_read(Port(0), WIDTH);
        assert!(matches!(read, Ok(7) | Err(AxError::ResourceBusy)));
        let written = other.join().expect("the other panicked");
        assert!(matches!(written, Ok(()) | Err(AxError::ResourceBusy)));
        assert_eq!(link.handle_read(Port(0), WIDTH), Ok(7));
    });
}
