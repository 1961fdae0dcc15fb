//! Whom this shard unchokes: the pure choker, fed with this shard's peers and its lease of the slots.

use crate::shard::Shard;
use engine::time::Time;

impl Shard {
    /// Whether a peer that has just become interested may be unchoked at once.
    pub(crate) fn may_unchoke(&self) -> bool {
        self.has_slots.get()
            && self
                .choker
                .borrow()
                .may_unchoke(u32::try_from(self.unchoked.get()).unwrap_or(u32::MAX))
    }

    /// Renews the lease of the slots, and holds a round of the choker when one is due or the lease changed.
    pub(crate) fn rechoke(&self, now: Time) {
        let connections = self.connections.borrow();
        let interested =
            |(_, connection): &(usize, &std::rc::Rc<crate::connection::Connection>)| {
                connection.session.borrow().is_interested()
            };
        let interested = connections.iter().filter(interested).count();
        let lease = self
            .limits
            .lease_slots(self.index, u32::try_from(interested).unwrap_or(u32::MAX));
        let mut choker = self.choker.borrow_mut();
        let slots = lease.unwrap_or(0);
        let had_slots = self.has_slots.replace(lease != Some(0));
        let changed = choker.slots() != slots || had_slots != self.has_slots.get();
        choker.set_slots(slots);
        if !changed && now < choker.next_timeout() {
            return;
        }
        let views: Vec<_> = connections
            .iter()
            .map(|(key, connection)| connection.choke_view(key))
            .collect();
        let mut changes = Vec::new();
        if self.has_slots.get() {
            choker.round(&views, now, &mut changes);
        }
        for change in &changes {
            if let Some(connection) = connections.get(change.key.0 as usize) {
                connection.set_choked(change.choke, now);
            }
        }
        for (_, connection) in connections.iter() {
            if !self.has_slots.get() {
                // Others hold all the slots: zero would mean "unlimited" to the choker.
                connection.set_choked(true, now);
            }
            connection.session.borrow_mut().start_choke_round();
        }
    }
}
