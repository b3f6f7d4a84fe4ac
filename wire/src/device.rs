//! What a sensor knows of a device, as it travels in a [`crate::Batch`].

use prost::{Enumeration, Message};

/// All that a sensor knows of one device: it is told whole, so that what was told before and got lost comes
/// again. Sets with the time of each element: joining them (least beginning, greatest end) is the same in any
/// order and any number of times.
///
/// Times are nanoseconds relative to [`crate::Batch::window_start_ns`] and may be negative.
#[derive(Clone, PartialEq, Message)]
pub struct Device {
    /// What the device is known by; at least one.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<DeviceFact>,
    #[prost(message, repeated, tag = "2")]
    pub addresses: Vec<DeviceAddress>,
    /// `source` says who told the name.
    #[prost(message, repeated, tag = "3")]
    pub names: Vec<DeviceFact>,
    /// Rules that held; `source` is the rule's word.
    #[prost(message, repeated, tag = "4")]
    pub reasons: Vec<DeviceReason>,
    /// Who made it, by the registry; empty if not known.
    #[prost(string, tag = "5")]
    pub vendor: String,
    #[prost(sint64, tag = "6")]
    pub first_ns: i64,
    #[prost(sint64, tag = "7")]
    pub last_ns: i64,
}

/// A key (`source` is its kind: `mac`, `random_mac`, `duid`, …) or a name.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceFact {
    /// Letters, digits and `_`.
    #[prost(string, tag = "1")]
    pub source: String,
    /// A name may have any characters.
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(sint64, tag = "3")]
    pub first_ns: i64,
    #[prost(sint64, tag = "4")]
    pub last_ns: i64,
}

/// An address that the device had.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceAddress {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    #[prost(sint64, tag = "2")]
    pub first_ns: i64,
    #[prost(sint64, tag = "3")]
    pub last_ns: i64,
}

/// Why the device may be of a type.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceReason {
    /// The rule's word.
    #[prost(string, tag = "1")]
    pub rule: String,
    #[prost(enumeration = "DeviceType", tag = "2")]
    pub device_type: i32,
    #[prost(uint32, tag = "3")]
    pub weight: u32,
    /// What was seen; any characters.
    #[prost(string, tag = "4")]
    pub detail: String,
    #[prost(sint64, tag = "5")]
    pub first_ns: i64,
    #[prost(sint64, tag = "6")]
    pub last_ns: i64,
}

/// What a device may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DeviceType {
    Unknown = 0,
    Router = 1,
    Switch = 2,
    AccessPoint = 3,
    Server = 4,
    Computer = 5,
    Phone = 6,
    Tablet = 7,
    Wearable = 8,
    Printer = 9,
    Camera = 10,
    Nas = 11,
    Tv = 12,
    MediaPlayer = 13,
    Speaker = 14,
    GameConsole = 15,
    Voip = 16,
    Hub = 17,
    Iot = 18,
    VirtualMachine = 19,
    Other = 20,
}

impl DeviceType {
    /// Every type that can be told.
    pub const ALL: [Self; 20] = [
        Self::Router,
        Self::Switch,
        Self::AccessPoint,
        Self::Server,
        Self::Computer,
        Self::Phone,
        Self::Tablet,
        Self::Wearable,
        Self::Printer,
        Self::Camera,
        Self::Nas,
        Self::Tv,
        Self::MediaPlayer,
        Self::Speaker,
        Self::GameConsole,
        Self::Voip,
        Self::Hub,
        Self::Iot,
        Self::VirtualMachine,
        Self::Other,
    ];

    /// The word for it, in tables, filters and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Router => "router",
            Self::Switch => "switch",
            Self::AccessPoint => "access_point",
            Self::Server => "server",
            Self::Computer => "computer",
            Self::Phone => "phone",
            Self::Tablet => "tablet",
            Self::Wearable => "wearable",
            Self::Printer => "printer",
            Self::Camera => "camera",
            Self::Nas => "nas",
            Self::Tv => "tv",
            Self::MediaPlayer => "media_player",
            Self::Speaker => "speaker",
            Self::GameConsole => "game_console",
            Self::Voip => "voip",
            Self::Hub => "hub",
            Self::Iot => "iot",
            Self::VirtualMachine => "virtual_machine",
            Self::Other => "other",
        }
    }

    /// The type of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.word() == word)
    }
}
