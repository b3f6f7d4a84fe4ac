//! Which process a socket belongs to, as the socket programs tell it.

/// Octets of a task's name in the kernel, with its final zero.
pub const TASK_NAME: usize = 16;

/// A process, as the kernel knows the task that made a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its process id in the host's namespace.
    pub pid: u32,
    /// Its name, with zeros behind it.
    pub name: [u8; TASK_NAME],
}

/// The packets that a socket sends, by their addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SentTuple {
    /// IPv4 as `::ffff:a.b.c.d`. The octets stand in memory as on the wire; in words, which the kernel's side
    /// compares.
    pub src: [u32; 4],
    pub dst: [u32; 4],
    /// Host byte order.
    pub src_port: u16,
    pub dst_port: u16,
    /// 6 or 17.
    pub protocol: u8,
    pub padding: [u8; 3],
}

/// A socket's packets and whose they are, as the ring carries them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Join {
    pub owner: Owner,
    pub tuple: SentTuple,
}

const _: () = assert!(size_of::<Owner>() == 20 && size_of::<SentTuple>() == 40 && size_of::<Join>() == 60);
