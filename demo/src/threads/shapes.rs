//! The guest's exits of other shapes, as KVM makes them: a page crossing in pieces, string output item by item,
//! string input in one buffer.

use axaddrspace::device::{AccessWidth, Port};

use super::{At, Guest};
use crate::contract::*;

impl Guest<'_> {
    /// Sends strings through this vCPU's queue, and checks what comes back.
    pub(super) fn strings(&mut self) {
        let port = QUEUE + QUEUE_BANK * self.vcpu as u16;
        let seed = pattern(QUEUE_SEED, self.vcpu);
        let words = (0..QUEUE_SIZE as u32 / 4).map(|n| seed.rotate_left(QUEUE_TURN * n));
        let sent: Vec<_> = words.flat_map(u32::to_le_bytes).collect();
        for (width, items) in STRINGS {
            let sent = &sent[..width as usize * items as usize];
            for item in sent.chunks(width as usize) {
                self.exits.port.add_one();
                let written = self.devices.write_bytes(Port(port), item);
                self.exits.answered(written);
            }
            let mut got = vec![0; sent.len()];
            self.exits.port.add_one();
            let read = (self.devices).read_repeated(Port(port), access_width(width), &mut got);
            self.exits.answered(read);
            for (got, sent) in got.into_iter().zip(sent) {
                self.check(At::Port(port), got.into(), (*sent).into());
            }
        }
    }
}

fn access_width(width: Width) -> AccessWidth {
    match width {
        Width::Byte => AccessWidth::Byte,
        Width::Word => AccessWidth::Word,
        Width::Dword => AccessWidth::Dword,
    }
}
