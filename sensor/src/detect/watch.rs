//! Detectors of what packets say, beside those of flows: they are shown observations as these come, and what they find
//! is told with the epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::bindings::Bindings;
use super::deprecated_tls::DeprecatedTls;
use super::dga::Dga;
use super::dns_tunnel::DnsTunnel;
use super::listed_domain::ListedDomain;
use super::new_device::NewDevice;
use super::retune::keep;
use super::servers::Servers;
use super::{Detection, Kind};
use crate::config::Detect;
use crate::observe::Observation;
use crate::threat::Known;

/// One method of detection; owns what it remembers.
pub(super) trait Looker: Send {
    fn observe(&mut self, observation: &Observation);
    /// What was found since the last time.
    fn take(&mut self) -> Vec<Detection>;
    fn kind(&self) -> Kind;
    /// Entries that were forgotten for want of room, ever.
    fn forgotten(&self) -> u64;
}

/// All of them that are on.
pub struct Watch {
    lookers: Vec<Box<dyn Looker>>,
    /// The parameters that they have.
    config: Detect,
    /// What the threat lists say of names.
    lists: Option<watch::Receiver<Arc<Known>>>,
    /// What lookers forgot that were replaced since.
    past: BTreeMap<Kind, u64>,
}

impl Watch {
    #[must_use]
    pub fn new(config: &Detect) -> Self {
        let mut lookers: Vec<Box<dyn Looker>> = Vec::new();
        let mut add = |on: bool, looker: Box<dyn Looker>| {
            if config.enabled && on {
                lookers.push(looker);
            }
        };
        add(config.bindings.enabled, Box::new(Bindings::new(config.bindings.clone())));
        for (kind, settings) in [(Kind::RogueDhcp, &config.rogue_dhcp), (Kind::RogueRa, &config.rogue_ra)] {
            add(settings.enabled, Box::new(Servers::new(kind, settings.clone())));
        }
        add(config.new_device.enabled, Box::new(NewDevice::new(config.new_device.clone())));
        add(config.dns_tunnel.enabled, Box::new(DnsTunnel::new(config.dns_tunnel.clone())));
        add(config.dga.enabled, Box::new(Dga::new(config.dga.clone())));
        add(config.deprecated_tls.enabled, Box::new(DeprecatedTls::new(config.deprecated_tls.clone())));
        Self { lookers, config: config.clone(), lists: None, past: BTreeMap::new() }
    }

    /// With what threat lists say of names: hits are told.
    #[must_use]
    pub fn with_lists(mut self, lists: Option<watch::Receiver<Arc<Known>>>) -> Self {
        if let Some(known) = lists.clone().filter(|_| self.config.enabled) {
            self.lookers.push(Box::new(ListedDomain::new(known)));
        }
        self.lists = lists;
        self
    }

    /// Forgets all that it remembers.
    pub fn begin_anew(&mut self) {
        *self = Self::new(&self.config).with_lists(self.lists.clone());
    }

    /// Takes in what was observed.
    pub fn observe(&mut self, observation: &Observation) {
        for looker in &mut self.lookers {
            looker.observe(observation);
        }
    }

    /// What was found since the last time: for [`super::Engine::tell_of`].
    pub fn take(&mut self) -> Vec<Detection> {
        self.lookers.iter_mut().flat_map(|looker| looker.take()).collect()
    }

    /// Takes other parameters; who has the same as before keeps what it remembers.
    pub fn retune(&mut self, config: &Detect) {
        if *config == self.config {
            return;
        }
        let new = Self::new(config).with_lists(self.lists.clone());
        let change = (&self.config, config);
        keep(&mut self.lookers, new.lookers, |it| (it.kind(), it.forgotten()), change, &mut self.past);
        self.config = config.clone();
    }

    /// By kind: entries that its detector forgot for want of room, ever.
    pub fn forgotten(&self) -> impl Iterator<Item = (Kind, u64)> {
        let past = |kind| self.past.get(&kind).copied().unwrap_or_default();
        self.lookers.iter().map(move |looker| (looker.kind(), past(looker.kind()) + looker.forgotten()))
    }
}

#[cfg(test)]
mod name_tests;
#[cfg(test)]
mod tests;
