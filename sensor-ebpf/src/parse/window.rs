//! A window on the bytes of a frame that moves forward, header by header.

use core::marker::PhantomData;

/// Types that any bytes are a value of.
///
/// # Safety
/// `repr(C)`, no padding, no invalid bit patterns.
pub(super) unsafe trait Header: Copy {}

// SAFETY: integers and arrays of integers.
unsafe impl Header for u8 {}
// SAFETY: as above.
unsafe impl Header for u32 {}
// SAFETY: as above.
unsafe impl<const N: usize> Header for [u8; N] {}

/// The unread bytes of a frame. Addresses, not a slice: the verifier follows the two pointers, and a
/// slice's length would be a third value that it cannot connect with them.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    at: usize,
    end: usize,
    taken: u32,
    frame: PhantomData<&'a [u8]>,
}

impl<'a> Window<'a> {
    /// A window on the whole of `frame`.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        let range = frame.as_ptr_range();
        Self { at: range.start as usize, end: range.end as usize, taken: 0, frame: PhantomData }
    }

    /// A window on the bytes from `start` up to `end`.
    ///
    /// # Safety
    /// They stay readable for `'a`, and `start <= end`.
    #[inline(always)]
    #[must_use]
    pub unsafe fn from_raw(start: usize, end: usize) -> Self {
        Self { at: start, end, taken: 0, frame: PhantomData }
    }

    /// Octets passed so far.
    #[inline(always)]
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// The header at the front, without passing it. `None` where the bytes end first.
    #[inline(always)]
    pub(super) fn peek<T: Header>(&self) -> Option<T> {
        if self.at + size_of::<T>() > self.end {
            return None;
        }
        let at = self.at as *const T;
        // SAFETY: the bytes up to `end` are readable, and any bytes are a `T`. The kernel reads packet
        // bytes at any alignment; elsewhere the read says so.
        Some(unsafe { if cfg!(target_arch = "bpf") { at.read() } else { at.read_unaligned() } })
    }

    /// The header at the front, and past it.
    #[inline(always)]
    pub(super) fn take<T: Header>(&mut self) -> Option<T> {
        let header = self.peek()?;
        self.skip(size_of::<T>() as u32);
        Some(header)
    }

    /// Past `octets` bytes, which may lie beyond the end: the next read then finds nothing.
    #[inline(always)]
    pub fn skip(&mut self, octets: u32) {
        self.at += octets as usize;
        self.taken += octets;
    }
}

/// A number that is added to a pointer, below a bound that the verifier sees. The compiler knows that the mask changes
/// nothing and would leave it out; and verifiers before 5.16 forget what they knew of a number that was spilled.
#[inline(always)]
#[must_use]
pub fn bounded<const MASK: u32>(number: u64) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: an AND of a register with a constant.
        unsafe { core::arch::asm!("{number} &= {mask}", number = inout(reg) number, mask = const MASK) };
        number as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        number as u32 & MASK
    }
}

macro_rules! header {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub(super) struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*, "no padding");
        // SAFETY: integers only, and no padding by the assertion above.
        unsafe impl $crate::parse::window::Header for $name {}
    };
}
pub(super) use header;
