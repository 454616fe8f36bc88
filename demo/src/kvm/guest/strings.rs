//! The guest's part that does string I/O.

use iced_x86::code_asm::{CodeAssembler, byte_ptr, dword_ptr, eax, ebp, ecx, edi, edx, esi};

use super::{Assembled, Parts, STRING_IN, STRING_OUT, Var::*, var};
use crate::contract::*;

/// Sends strings through this vCPU's queue, and has what comes back compared.
pub(super) fn strings(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a:
        set_label(&mut parts.strings);
        mov(eax, QUEUE_SEED);
        xor(eax, var(Salt));
    }
    for at in (0..QUEUE_SIZE as u32).step_by(4) {
        asm! { a:
            mov(dword_ptr(ebp + STRING_OUT + at), eax);
            rol(eax, QUEUE_TURN);
        }
    }
    for (width, items) in STRINGS {
        transfer(a, width, items)?;
        for byte in 0..width as u32 * items {
            asm! { a:
                movzx(eax, byte_ptr(ebp + STRING_IN + byte));
                movzx(ecx, byte_ptr(ebp + STRING_OUT + byte));
                mov(edi, var(Queue));
                call(parts.check);
            }
        }
    }
    asm! { a: ret() }
    Ok(())
}

/// Sends so many items, and takes them back.
fn transfer(a: &mut CodeAssembler, width: Width, items: u32) -> Assembled {
    asm! { a:
        mov(edx, var(Queue));
        lea(esi, dword_ptr(ebp + STRING_OUT));
        mov(ecx, items);
    }
    match width {
        Width::Byte => a.rep().outsb()?,
        Width::Word => a.rep().outsw()?,
        Width::Dword => a.rep().outsd()?,
    }
    asm! { a:
        lea(edi, dword_ptr(ebp + STRING_IN));
        mov(ecx, items);
    }
    match width {
        Width::Byte => a.rep().insb()?,
        Width::Word => a.rep().insw()?,
        Width::Dword => a.rep().insd()?,
    }
    Ok(())
}
