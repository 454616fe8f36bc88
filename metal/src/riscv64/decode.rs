//! Decodes the access that caused a trap from its instruction: few machines report it in `htinst`.

use core::ptr::with_exposed_provenance;

use axaddrspace::{
    GuestPhysAddr,
    device::AccessWidth::{self, Byte, Dword, Qword, Word},
};
use riscv_decode::{Instruction, decode, instruction_length};

use crate::vm::Vm;

/// A load or a store.
pub(super) struct Access {
    pub(super) width: AccessWidth,
    pub(super) kind: Kind,
    /// The length of the instruction, in bytes.
    pub(super) length: usize,
}

pub(super) enum Kind {
    /// A load into this register, with or without sign extension.
    Load { register: usize, signed: bool },
    /// A store of this register.
    Store { register: usize },
}

impl Access {
    /// The access of the instruction at `sepc`, which is a guest physical address: the guest translates nothing.
    pub(super) fn at(sepc: usize, vm: &Vm) -> Option<Self> {
        let first = half_at(sepc, vm)?;
        let length = instruction_length(first);
        let second = if length == 4 {
            half_at(sepc + 2, vm)?
        } else {
            0
        };
        let instruction = u32::from(second) << 16 | u32::from(first);
        let (width, kind) = match decode(instruction).ok()? {
            Instruction::Lb(i) => (Byte, load(i.rd(), true)),
            Instruction::Lh(i) => (Word, load(i.rd(), true)),
            Instruction::Lw(i) => (Dword, load(i.rd(), true)),
            Instruction::Ld(i) => (Qword, load(i.rd(), true)),
            Instruction::Lbu(i) => (Byte, load(i.rd(), false)),
            Instruction::Lhu(i) => (Word, load(i.rd(), false)),
            Instruction::Lwu(i) => (Dword, load(i.rd(), false)),
            Instruction::Sb(i) => (Byte, store(i.rs2())),
            Instruction::Sh(i) => (Word, store(i.rs2())),
            Instruction::Sw(i) => (Dword, store(i.rs2())),
            Instruction::Sd(i) => (Qword, store(i.rs2())),
            _ => return None,
        };
        Some(Self {
            width,
            kind,
            length,
        })
    }
}

/// Two bytes of the guest's memory.
fn half_at(address: usize, vm: &Vm) -> Option<u16> {
    let address = vm.memory.translate(GuestPhysAddr::from_usize(address))?;
    let half = with_exposed_provenance::<u16>(address.as_usize());
    // SAFETY: it is in the guest's memory, to which the page tables translate, and aligned as all instructions are. No
    // reference to that memory exists.
    Some(unsafe { half.read_volatile() })
}

fn load(register: u32, signed: bool) -> Kind {
    Kind::Load {
        register: register as usize,
        signed,
    }
}

fn store(register: u32) -> Kind {
    Kind::Store {
        register: register as usize,
    }
}

/// The value that a load leaves in its register.
pub(super) fn extend(value: usize, width: AccessWidth, signed: bool) -> usize {
    match (width, signed) {
        (Byte, true) => value as u8 as i8 as usize,
        (Word, true) => value as u16 as i16 as usize,
        (Dword, true) => value as u32 as i32 as usize,
        _ => value,
    }
}
