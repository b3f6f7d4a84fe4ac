//! The table of devices: finds whom a sighting is about, joins what turns out to be one, forgets when it is full.
//!
//! What must stay true: each identifier leads to at most one device; two devices with different anchors are never
//! joined, whatever else they share ([`super::identity`]); every list of a device is bounded, and so is the table: a
//! flood of invented addresses pushes out itself before anything that was seen for a while or told its name.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use smallvec::SmallVec;
use weir_wire::limits;

use super::identity::{Habit, Identifier, Worth};
use super::kinds::{Reasons, Signal};
use super::sighting::{NameSource, Sighting, Who};
use crate::observe::Mac;

/// A device is settled when it was seen over so long a time.
const SETTLED_NS: i64 = 5 * 60 * 1_000_000_000;
/// Identifiers that turned out to be shared; they identify nobody any more.
const MAX_DISPUTED: usize = 1_024;

/// With when it was first and last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<T> {
    pub value: T,
    pub first_ns: i64,
    pub last_ns: i64,
}

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub identifiers: Vec<Timed<Identifier>>,
    pub addresses: Vec<Timed<IpAddr>>,
    pub names: Vec<Timed<(NameSource, String)>>,
    pub reasons: Reasons,
    pub vendor: Option<String>,
    pub first_ns: i64,
    pub last_ns: i64,
    habit: Option<Habit>,
    /// Something is known that was not told.
    pub(super) news: bool,
    pub(super) told_ns: Option<i64>,
}

impl Device {
    /// Addresses of its cards that their maker gave.
    fn anchors(&self) -> impl Iterator<Item = &Identifier> {
        self.identifiers.iter().map(|it| &it.value).filter(|it| it.worth() == Worth::Anchor)
    }

    pub fn has_mac(&self, mac: Mac) -> bool {
        self.identifiers.iter().any(|it| it.value == Identifier::Mac(mac))
    }

    /// The name to show: of the best source, the last one told.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let best = self.names.iter().min_by_key(|it| (it.value.0, std::cmp::Reverse(it.last_ns)));
        best.map(|it| it.value.1.as_str())
    }

    fn is_settled(&self) -> bool {
        !self.names.is_empty() || self.last_ns.saturating_sub(self.first_ns) >= SETTLED_NS
    }
}

type Id = u64;

/// All devices.
#[derive(Debug, Default)]
pub(super) struct Book {
    devices: HashMap<Id, Device>,
    identified: HashMap<Identifier, Id>,
    at: HashMap<IpAddr, Id>,
    habits: HashMap<Habit, Id>,
    disputed: HashSet<Identifier>,
    next: Id,
    capacity: usize,
    pub forgotten: u64,
    pub joined: u64,
}

impl Book {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub fn clear(&mut self) {
        let Self { next, capacity, forgotten, joined, .. } = *self;
        *self = Self { next, capacity, forgotten, joined, ..Self::default() };
    }

    pub fn len(&self) -> usize {
        self.devices.len()
    }

    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    pub fn devices_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.devices.values_mut()
    }

    /// The device that was last seen to have an address.
    pub fn at_mut(&mut self, address: IpAddr) -> Option<&mut Device> {
        self.devices.get_mut(self.at.get(&address)?)
    }

    /// Takes a sighting in. `vendor` names the maker of a card.
    pub fn see<'v>(&mut self, sighting: Sighting<'_>, at_ns: i64, vendor: impl Fn(Mac) -> Option<&'v str>) {
        let Sighting { who, addresses, names, signals, habit } = sighting;
        let id = match who {
            Who::At(address, mac) => {
                let known = self.at.get(&address).copied();
                let device = known.and_then(|id| self.devices.get(&id));
                if !device.is_some_and(|device| mac.is_none_or(|mac| device.has_mac(mac))) {
                    return;
                }
                known
            }
            Who::Known(identifiers) => self.home(&identifiers, at_ns, &vendor),
        };
        let Some(id) = id else { return };
        let id = habit.map_or(id, |habit| self.recognise(id, habit));
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.first_ns = device.first_ns.min(at_ns);
        device.last_ns = device.last_ns.max(at_ns);
        for (source, name) in names {
            device.news |=
                keep(&mut device.names, (source, name.into_owned()), at_ns, limits::MAX_DEVICE_NAMES);
        }
        for (signal, text) in signals {
            device.news |= device.reasons.look(signal, &text, at_ns);
        }
        for address in addresses {
            device.news |= keep(&mut device.addresses, address, at_ns, limits::MAX_DEVICE_ADDRESSES);
            self.at.insert(address, id);
        }
        if self.at.len() > self.capacity * 8 {
            // Addresses that a device had once are forgotten with their devices; of a flood on one, here.
            let devices = &self.devices;
            self.at.retain(|address, id| {
                devices.get(id).is_some_and(|device| device.addresses.iter().any(|it| it.value == *address))
            });
        }
    }

    /// The device with these identifiers, made where there is none.
    fn home<'v>(
        &mut self,
        identifiers: &[Identifier],
        at_ns: i64,
        vendor: &impl Fn(Mac) -> Option<&'v str>,
    ) -> Option<Id> {
        let mut usable: SmallVec<[&Identifier; 4]> =
            identifiers.iter().filter(|it| !self.disputed.contains(*it)).collect();
        let mut home: Option<Id> = None;
        usable.retain(|identifier| {
            let Some(found) = self.identified.get(*identifier).copied() else { return true };
            match home {
                None if self.may_have(found, identifiers) => home = Some(found),
                Some(home) if home == found => {}
                Some(id) if self.may_join(id, found) => {
                    self.join(id, found);
                    home = Some(id);
                }
                // A clone's: whom it names cannot be said.
                _ => {
                    self.dispute((*identifier).clone());
                    return false;
                }
            }
            true
        });
        if usable.is_empty() {
            return None;
        }
        let id = home.unwrap_or_else(|| self.add(at_ns));
        for identifier in usable {
            let Some(device) = self.devices.get_mut(&id) else { break };
            let new = keep(&mut device.identifiers, identifier.clone(), at_ns, limits::MAX_DEVICE_KEYS);
            device.news |= new;
            if let (true, Identifier::Mac(mac)) = (new, identifier)
                && let Some(vendor) = vendor(*mac)
            {
                device.vendor.get_or_insert_with(|| vendor.to_owned());
                device.reasons.look(Signal::Vendor, vendor, at_ns);
            }
            self.identified.insert(identifier.clone(), id);
        }
        self.drop_stale(id);
        Some(id)
    }

    /// Identifiers that its list had no more room for lead nowhere.
    fn drop_stale(&mut self, id: Id) {
        let Some(device) = self.devices.get(&id) else { return };
        if device.identifiers.len() == limits::MAX_DEVICE_KEYS {
            let kept: HashSet<&Identifier> = device.identifiers.iter().map(|it| &it.value).collect();
            self.identified.retain(|identifier, owner| *owner != id || kept.contains(identifier));
        }
    }

    fn add(&mut self, at_ns: i64) -> Id {
        if self.devices.len() >= self.capacity {
            self.forget();
        }
        self.next += 1;
        let device = Device { first_ns: at_ns, last_ns: at_ns, news: true, ..Device::default() };
        self.devices.insert(self.next, device);
        self.next
    }

    /// Whether a device may have these, too: not if they name another card than its own.
    fn may_have(&self, id: Id, identifiers: &[Identifier]) -> bool {
        let Some(device) = self.devices.get(&id) else { return false };
        let mut anchors = identifiers.iter().filter(|it| it.worth() == Worth::Anchor).peekable();
        anchors.peek().is_none()
            || device.anchors().next().is_none()
            || anchors.any(|anchor| device.anchors().any(|own| own == anchor))
    }

    fn may_join(&self, one: Id, other: Id) -> bool {
        let anchored = |id| self.devices.get(&id).is_some_and(|device| device.anchors().next().is_some());
        !(anchored(one) && anchored(other))
    }

    /// Takes all of `other` into `id`.
    fn join(&mut self, id: Id, other: Id) {
        let Some(gone) = self.devices.remove(&other) else { return };
        let Some(device) = self.devices.get_mut(&id) else { return };
        for it in gone.identifiers {
            self.identified.insert(it.value.clone(), id);
            keep_timed(&mut device.identifiers, it, limits::MAX_DEVICE_KEYS);
        }
        for it in gone.addresses {
            if self.at.get(&it.value) == Some(&other) {
                self.at.insert(it.value, id);
            }
            keep_timed(&mut device.addresses, it, limits::MAX_DEVICE_ADDRESSES);
        }
        for it in gone.names {
            keep_timed(&mut device.names, it, limits::MAX_DEVICE_NAMES);
        }
        device.reasons.join(gone.reasons);
        device.vendor = device.vendor.take().or(gone.vendor);
        device.first_ns = device.first_ns.min(gone.first_ns);
        device.last_ns = device.last_ns.max(gone.last_ns);
        device.news = true;
        if let Some(habit) = gone.habit {
            self.habits.insert(habit.clone(), id);
            device.habit.get_or_insert(habit);
        }
        self.joined += 1;
        self.drop_stale(id);
    }

    /// A made-up address of which the name and the behaviour are known from one that has gone silent before it came.
    fn recognise(&mut self, id: Id, habit: Habit) -> Id {
        let before = self.habits.get(&habit).copied().filter(|before| *before != id);
        let passing = |device: &Device| device.anchors().next().is_none();
        if let Some(before) = before
            && let (Some(old), Some(new)) = (self.devices.get(&before), self.devices.get(&id))
            && passing(old)
            && passing(new)
            && old.last_ns < new.first_ns
        {
            self.join(before, id);
            return before;
        }
        if let Some(device) = self.devices.get_mut(&id) {
            if let Some(old) = device.habit.replace(habit.clone())
                && old != habit
                && self.habits.get(&old) == Some(&id)
            {
                self.habits.remove(&old);
            }
            self.habits.insert(habit, id);
        }
        id
    }

    fn dispute(&mut self, identifier: Identifier) {
        if self.disputed.len() < MAX_DISPUTED {
            self.identified.remove(&identifier);
            for device in self.devices.values_mut() {
                device.identifiers.retain(|it| it.value != identifier);
            }
            self.disputed.insert(identifier);
        }
    }

    /// A quarter goes at once, so that a full table costs little for each newcomer.
    fn forget(&mut self) {
        let mut ages: Vec<(bool, i64, Id)> =
            self.devices.iter().map(|(id, device)| (device.is_settled(), device.last_ns, *id)).collect();
        let quarter = ages.len() / 4;
        let (_, bound, _) = ages.select_nth_unstable(quarter);
        let bound = *bound;
        let before = self.devices.len();
        self.devices.retain(|id, device| (device.is_settled(), device.last_ns, *id) > bound);
        self.forgotten += (before - self.devices.len()) as u64;
        let devices = &self.devices;
        self.identified.retain(|_, id| devices.contains_key(id));
        self.at.retain(|_, id| devices.contains_key(id));
        self.habits.retain(|_, id| devices.contains_key(id));
    }
}

/// Keeps a value with its time; whether it is new. A full list gives up what was silent longest.
fn keep<T: PartialEq>(list: &mut Vec<Timed<T>>, value: T, at_ns: i64, most: usize) -> bool {
    keep_timed(list, Timed { value, first_ns: at_ns, last_ns: at_ns }, most)
}

fn keep_timed<T: PartialEq>(list: &mut Vec<Timed<T>>, new: Timed<T>, most: usize) -> bool {
    if let Some(known) = list.iter_mut().find(|known| known.value == new.value) {
        known.first_ns = known.first_ns.min(new.first_ns);
        known.last_ns = known.last_ns.max(new.last_ns);
        return false;
    }
    if list.len() >= most {
        let oldest = list.iter().enumerate().min_by_key(|(_, it)| it.last_ns).map(|(at, _)| at);
        if let Some(oldest) = oldest {
            list.swap_remove(oldest);
        }
    }
    list.push(new);
    true
}
