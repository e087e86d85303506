#![no_std]
#![no_main]
use aya_ebpf::{macros::classifier, programs::TcContext};
use aya_log_ebpf::info;
#[classifier]
pub fn datapath(ctx: TcContext) -> i32 {
    info!(&ctx, "x {}", ctx.len());
    -1
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
