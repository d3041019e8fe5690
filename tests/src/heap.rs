//! What a thread takes of the heap. A test program counts it by making [`Counting`] its global allocator.
#![expect(unsafe_code, reason = "a global allocator can only be written with it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// What this thread has allocated and freed so far.
    static USE: Cell<HeapUse> = const { Cell::new(HeapUse { allocations: 0, held: 0 }) };
}

/// What a thread has taken of the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapUse {
    /// How often memory was asked for.
    pub allocations: u64,
    /// Bytes that were allocated and not freed. Negative where a thread frees what another allocated.
    pub held: i64,
}

impl HeapUse {
    /// That of the calling thread; nothing where the program's allocator is not [`Counting`].
    pub fn of_this_thread() -> HeapUse {
        USE.get()
    }
}

/// The system's allocator, counting.
#[derive(Debug)]
pub struct Counting;

fn count(allocations: u64, allocated: usize, freed: usize) {
    let before = USE.get();
    // No allocation is longer than `isize::MAX`.
    let held = before.held + allocated as i64 - freed as i64;
    USE.set(HeapUse { allocations: before.allocations + allocations, held });
}

// SAFETY: every call is handed on to `System` unchanged; counting touches a thread-local cell that needs no allocation, as
// it is initialized by a constant and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System.alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, 0, layout.size());
        // SAFETY: `pointer` came from `System`, as everything here does, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size, layout.size());
        // SAFETY: as for `alloc` and `dealloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
