//! The guest's parts that have its device move, and ring its doorbell.

use iced_x86::code_asm::{CodeAssembler, dword_ptr, eax, ecx, esi};

use super::{Assembled, Bus, Parts, Var::*, registers::read_and_check, var};
use crate::contract::*;

/// Has this vCPU's device move to its next place: from the next access on it is there, and no longer
/// here; nor is its doorbell.
pub(super) fn relocate(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a:
        set_label(&mut parts.relocate);
        mov(esi, var(Place));
        lea(ecx, dword_ptr(esi + PLACE_STRIDE));
        and(ecx, (PLACES - 1) as i32);
        mov(eax, esi);
        and(eax, !(PLACES - 1) as i32);
        or(eax, ecx);
        mov(var(Place), eax);
        mov(dword_ptr(esi + BAR_ADDRESS), eax);
        mov(var(Shadow), FLOATING as i32);
    }
    read_and_check(a, Bus::Mmio, Width::Dword, BAR_ID, parts.check)?;
    asm! { a:
        mov(eax, BELL_SEED);
        xor(eax, var(Salt));
        mov(dword_ptr(esi + BAR_DOORBELL), eax);
        add(var(Misses), 2);
        mov(esi, var(Place));
        mov(eax, BAR_SEED);
        xor(eax, var(Salt));
        mov(var(Shadow), eax);
    }
    read_and_check(a, Bus::Mmio, Width::Dword, BAR_ID, parts.check)?;
    asm! { a:
        mov(var(Shadow), esi);
        add(esi, BAR_ADDRESS);
    }
    read_and_check(a, Bus::Mmio, Width::Dword, 0, parts.check)?;
    asm! { a:
        call(parts.ring);
        ret();
    }
    Ok(())
}

/// Rings this vCPU's doorbell, where its device is.
pub(super) fn ring(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a:
        set_label(&mut parts.ring);
        mov(esi, var(Place));
        mov(eax, BELL_SEED);
        xor(eax, var(Salt));
        mov(dword_ptr(esi + BAR_DOORBELL), eax);
        inc(var(Rings));
        ret();
    }
    Ok(())
}
