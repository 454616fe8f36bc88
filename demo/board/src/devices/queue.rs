//! A queue of bytes behind ports, for string I/O.

use alloc::collections::VecDeque;
use core::cell::RefCell;

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use guest::contract::{QUEUE, QUEUE_BANK, QUEUE_SIZE};

/// A vCPU's queue. A write puts its bytes in, a read takes the same number out. A full queue takes none, and an empty
/// one gives zeros. Not `Sync`: in the registry it is a `Serialized` device.
pub struct Queue {
    first: u16,
    bytes: RefCell<VecDeque<u8>>,
}

impl Queue {
    /// The queue of `vcpu`.
    pub(crate) fn new(vcpu: u32) -> Self {
        Self {
            first: QUEUE + QUEUE_BANK * vcpu as u16,
            bytes: RefCell::default(),
        }
    }
}

impl BaseDeviceOps<PortRange> for Queue {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(self.first), Port(self.first + QUEUE_BANK - 1))
    }

    fn handle_read(&self, _: Port, width: AccessWidth) -> AxResult<usize> {
        let mut bytes = self.bytes.borrow_mut();
        let mut value = [0; size_of::<usize>()];
        for byte in &mut value[..width.size()] {
            *byte = bytes.pop_front().unwrap_or_default();
        }
        Ok(usize::from_le_bytes(value))
    }

    fn handle_write(&self, _: Port, width: AccessWidth, val: usize) -> AxResult {
        let mut bytes = self.bytes.borrow_mut();
        let room = QUEUE_SIZE - bytes.len();
        bytes.extend(&val.to_le_bytes()[..width.size().min(room)]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_no_more_than_fit() {
        let queue = Queue::new(0);
        for item in 0..5 {
            queue
                .handle_write(Port(QUEUE), AccessWidth::Dword, 0x0403_0201 * (item + 1))
                .unwrap();
        }
        assert_eq!(queue.bytes.borrow().len(), QUEUE_SIZE);
        assert_eq!(
            queue.handle_read(Port(QUEUE), AccessWidth::Word),
            Ok(0x0201)
        );
        assert_eq!(
            queue.handle_read(Port(QUEUE), AccessWidth::Dword),
            Ok(0x0402_0403)
        );
        for _ in 0..3 {
            queue.handle_read(Port(QUEUE), AccessWidth::Dword).unwrap();
        }
        assert_eq!(queue.handle_read(Port(QUEUE), AccessWidth::Byte), Ok(0));
    }
}
