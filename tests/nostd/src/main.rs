//! The core without std: its own entry point, panic handler, allocator and system calls, and no C library.
//!
//! A `std` anywhere below `vine-core` would bring a second panic handler and fail to compile (`duplicate lang item`), and a
//! call into the C library would fail to link. What is left is run: it must exit with 0.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "entry point, allocator and system calls of a program without a runtime")]

extern crate alloc;

mod host;
mod scenario;

use core::panic::PanicInfo;

/// Where the kernel starts the program.
///
/// # Safety
/// Called once, by the kernel, with the stack aligned to 16 bytes; the call pushes a return address as the ABI expects.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!("xor ebp, ebp", "call {main}", "ud2", main = sym run)
}

extern "C" fn run() -> ! {
    let status = scenario::run();
    host::exit(status)
}

#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    host::exit(101)
}
