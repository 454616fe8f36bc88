//! The guest's parts that print by the UART.

use iced_x86::code_asm::{CodeAssembler, CodeLabel, ah, al, dword_ptr, dx, eax, ecx, edx};

use super::{Assembled, Parts, Var::*, var};
use crate::{contract::*, kvm::memory::CONSOLE_LOCK};

/// Prints a line, unless another guest prints just now.
pub(super) fn print(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let mut end = a.create_label();
    asm! { a:
        set_label(&mut parts.print);
        mov(eax, 1);
        xchg(dword_ptr(CONSOLE_LOCK), eax);
        test(eax, eax);
        jnz(end);
    }
    for (text, number) in [
        ("vCPU ", Vcpu),
        (": rounds: ", Rounds),
        (", devices seen: ", Next),
    ] {
        put_text(a, text, parts.put)?;
        asm! { a:
            mov(eax, var(number));
            call(parts.put_number);
        }
    }
    put_text(a, "\n", parts.put)?;
    asm! { a:
        xor(eax, eax);
        xchg(dword_ptr(CONSOLE_LOCK), eax);
        set_label(&mut end);
        ret();
    }
    Ok(())
}

/// Prints the text.
fn put_text(a: &mut CodeAssembler, text: &str, put: CodeLabel) -> Assembled {
    for byte in text.bytes() {
        asm! { a:
            mov(al, u32::from(byte));
            call(put);
        }
    }
    Ok(())
}

/// Prints `eax` in decimal.
pub(super) fn put_number(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let (mut divide, mut show, mut end) = (a.create_label(), a.create_label(), a.create_label());
    asm! { a:
        set_label(&mut parts.put_number);
        push(0);
        mov(ecx, 10);
        set_label(&mut divide);
        xor(edx, edx);
        div(ecx);
        add(edx, i32::from(b'0'));
        push(edx);
        test(eax, eax);
        jnz(divide);

        set_label(&mut show);
        pop(eax);
        test(eax, eax);
        jz(end);
        call(parts.put);
        jmp(show);
        set_label(&mut end);
        ret();
    }
    Ok(())
}

/// Prints the character `al`. Changes `eax` and `edx`.
pub(super) fn put(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let mut wait = a.create_label();
    asm! { a:
        set_label(&mut parts.put);
        mov(ah, al);
        mov(edx, u32::from(UART_LSR));
        set_label(&mut wait);
        in_(al, dx);
        test(al, u32::from(LSR_READY));
        jz(wait);
        mov(al, ah);
        mov(edx, u32::from(UART));
        out(dx, al);
        ret();
    }
    Ok(())
}
