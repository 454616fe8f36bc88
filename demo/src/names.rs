//! The names of the devices in a report, by address.

use axdevice::BusId;

use crate::contract::{
    BARS, Belt, MAILBOX, MAX_VCPUS, MMIO_LATCH, PLACES, PORT_LATCH, QUEUE, QUEUE_BANK, SLOT_SHIFT,
    SLOTS, UART, crossing,
};

/// The name of the device that owns addresses from `first` on.
pub(crate) fn name_at(bus: BusId, first: u64) -> String {
    match bus {
        BusId::Mmio => mmio(first as u32),
        _ => port(first as u16),
    }
}

fn mmio(first: u32) -> String {
    if let Some(vcpu) = (0..MAX_VCPUS).find(|vcpu| crossing(*vcpu) == first) {
        return format!("crossing of vCPU {vcpu}");
    }
    const FULL: u32 = Belt::Full as u32;
    const LOOSE: u32 = Belt::Loose as u32;
    match first {
        SLOTS.. => format!("slot {}", (first - SLOTS) >> SLOT_SHIFT),
        BARS.. => format!("mover of vCPU {}", (first - BARS) / PLACES),
        LOOSE.. => format!("loose belt, bay {}", Belt::Loose.bay_at(first)),
        FULL.. => format!("full belt, bay {}", Belt::Full.bay_at(first)),
        MMIO_LATCH => "MMIO latch".into(),
        _ => String::new(),
    }
}

fn port(first: u16) -> String {
    match first {
        QUEUE.. => format!("queue of vCPU {}", (first - QUEUE) / QUEUE_BANK),
        MAILBOX => "mailboxes".into(),
        PORT_LATCH => "port latch".into(),
        UART => "UART".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{SLOT_STRIDE, first_place, next_place};

    #[test]
    fn each_device_has_its_name() {
        for (first, name) in [
            (MMIO_LATCH, "MMIO latch"),
            (crossing(0), "crossing of vCPU 0"),
            (crossing(63), "crossing of vCPU 63"),
            (Belt::Full.bay(7), "full belt, bay 7"),
            (Belt::Loose.bay(0), "loose belt, bay 0"),
            (next_place(first_place(3)), "mover of vCPU 3"),
            (SLOTS + 12 * SLOT_STRIDE, "slot 12"),
        ] {
            assert_eq!(name_at(BusId::Mmio, first.into()), name);
        }
        for (first, name) in [
            (UART, "UART"),
            (PORT_LATCH, "port latch"),
            (MAILBOX, "mailboxes"),
            (QUEUE + 2 * QUEUE_BANK, "queue of vCPU 2"),
        ] {
            assert_eq!(name_at(BusId::Port, first.into()), name);
        }
    }
}
