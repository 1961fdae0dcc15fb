//! Whom this shard unchokes: the pure choker, fed with this shard's peers and its lease of the
//! slots.

use crate::shard::Shard;
use engine::choker::Role;
use engine::time::Time;

impl Shard {
    /// Takes a slot for a peer that has just become interested, if it may be unchoked at once.
    pub(crate) fn claim_slot(&self, role: Role) -> bool {
        self.has_slots.get() && self.choker.borrow_mut().claim(role, self.unchoked_peers())
    }

    /// Renews the lease of the slots, and holds a round of the choker when one is due, when the
    /// lease no longer covers who is unchoked, or when it has room and somebody waits.
    pub(crate) fn rechoke(&self, now: Time) {
        let connections = self.connections.borrow();
        let mut interested = 0;
        for (_, connection) in connections.iter() {
            interested += u32::from(connection.session.borrow().is_interested());
        }
        let lease = self.limits.lease_slots(self.index, interested);
        // To the choker zero means "unlimited": a shard whose lease is nothing holds no rounds.
        self.has_slots.set(lease != Some(0));
        if lease == Some(0) {
            connections
                .iter()
                .for_each(|(_, connection)| connection.set_choked(self, true, now));
            return;
        }
        let slots = lease.unwrap_or(0);
        let mut choker = self.choker.borrow_mut();
        choker.set_slots(slots);
        let due = now >= choker.next_timeout();
        let over = slots != 0 && self.unchoked.get() > u64::from(slots);
        let room = connections.iter().any(|(_, connection)| {
            let session = connection.session.borrow();
            session.wants_unchoke() && choker.may_unchoke(session.role(), self.unchoked_peers())
        });
        if !(due || over || room) {
            return;
        }
        let views: Vec<_> = connections
            .iter()
            .map(|(key, connection)| connection.choke_view(key, now))
            .collect();
        let mut changes = Vec::new();
        choker.round(&views, now, &mut changes);
        for change in &changes {
            if let Some(connection) = connections.get(change.key.0 as usize) {
                connection.set_choked(self, change.choke, now);
            }
        }
        if due {
            let sessions = connections
                .iter()
                .map(|(_, connection)| &connection.session);
            sessions.for_each(|session| session.borrow_mut().start_choke_round());
        }
    }

    fn unchoked_peers(&self) -> u32 {
        u32::try_from(self.unchoked.get()).unwrap_or(u32::MAX)
    }
}
