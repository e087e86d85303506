//! The probe's programs: they follow packets from and to the target addresses, and change nothing. Every verdict they
//! return passes the packet on.
#![no_std]
#![no_main]
// Stable for other targets; for one instruction (`emit::add`).
#![feature(asm_experimental_arch)]

mod cgroup;
mod early;
mod emit;
mod parse;
mod settings;
mod tcx;
mod tracing;

/// A panic that could be reached would be an endless loop, which the verifier refuses: it never runs.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// kfree_skb's and the tracing helpers ask for a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
