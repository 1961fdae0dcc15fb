//! What we ask: queries under way, searches that ask in turn, and what the answers bring.

use super::lookup::{Goal, LookupId};
use super::site::Site;
use super::{Event, Family, NODES_FEW, Node, is_host, may_name};
use crate::time::Time;
use proto::dht::{Body, Contact, Message, NodeId, Query, Reply, Token, TransactionId, Want};
use proto::ids::InfoHashV1;
use std::net::SocketAddr;

/// What a query is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Ping,
    Search(LookupId),
    Announce(LookupId, InfoHashV1, u16, Token),
}

/// A query that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction {
    to: SocketAddr,
    /// Who is to answer, if that is known.
    id: Option<NodeId>,
    purpose: Purpose,
    /// When it is given up.
    until: Time,
    /// When it is looked at again: slow, or given up.
    due: Time,
}

impl Node {
    /// Sends what is waiting, as far as the pace allows.
    pub(super) fn pump(&mut self, now: Time) {
        self.is_held = false;
        while let Some((id, address)) = self.pings.front().copied() {
            if !self.ask(id, address, Purpose::Ping, now) {
                return;
            }
            self.pings.pop_front();
        }
        self.pump_lookups(now);
    }

    /// Lets the searches ask in turn, and ends those that have nothing left to ask.
    fn pump_lookups(&mut self, now: Time) {
        let after = self.lookup_cursor;
        let (later, sooner): (Vec<_>, Vec<_>) = self.lookups.keys().partition(|id| **id > after);
        let mut turns: Vec<LookupId> = later.into_iter().chain(sooner).collect();
        while !turns.is_empty() {
            let mut busy = Vec::new();
            for id in turns {
                let Some(lookup) = self.lookups.get_mut(&id) else {
                    continue;
                };
                let Some((node, address)) = lookup.next() else {
                    if lookup.is_finished() {
                        self.finish_search(id, now);
                    }
                    continue;
                };
                if !self.ask(node, address, Purpose::Search(id), now) {
                    if let Some(lookup) = self.lookups.get_mut(&id) {
                        lookup.not_asked(address);
                    }
                    return;
                }
                self.lookup_cursor = id;
                busy.push(id);
            }
            turns = busy;
        }
    }

    /// Sends a query; false if it has to wait.
    pub(super) fn ask(
        &mut self,
        id: Option<NodeId>,
        to: SocketAddr,
        purpose: Purpose,
        now: Time,
    ) -> bool {
        if self.transactions.len() >= self.config.transactions_max {
            // The end of another wakes us.
            return false;
        }
        if !self.queries.take(&mut self.queries_spent, 1, now) {
            self.is_held = true;
            return false;
        }
        self.ask_now(id, to, purpose, now);
        true
    }

    fn ask_now(&mut self, id: Option<NodeId>, to: SocketAddr, purpose: Purpose, now: Time) {
        let number = loop {
            let number = self.random.next_u64() as u32;
            if !self.transactions.contains_key(&number) {
                break number;
            }
        };
        let transaction = TransactionId::new(&number.to_be_bytes());
        let (Some(query), Some(transaction)) = (self.query_of(purpose), transaction) else {
            return;
        };
        let message = Message {
            transaction,
            body: Body::Query {
                id: self.id,
                query,
                read_only: self.config.read_only,
            },
            seen: None,
        };
        let due = now + self.config.slow_after;
        let until = now + self.config.answer_timeout;
        self.transactions.insert(
            number,
            Transaction {
                to,
                id,
                purpose,
                until,
                due,
            },
        );
        self.deadlines.insert((due, number));
        *self.asked.entry(to).or_default() += 1;
        self.counters.queries += 1;
        self.send(to, message.encode());
    }

    /// What is asked for this purpose; nothing if its search has ended.
    fn query_of(&self, purpose: Purpose) -> Option<Query> {
        let id = match purpose {
            Purpose::Ping => return Some(Query::Ping),
            Purpose::Announce(_, info_hash, port, token) => {
                return Some(Query::AnnouncePeer {
                    info_hash,
                    port: Some(port),
                    token,
                });
            }
            Purpose::Search(id) => id,
        };
        let lookup = self.lookups.get(&id)?;
        let both = lookup.both_families;
        let want = Want { v4: both, v6: both };
        Some(match lookup.goal {
            Goal::Nodes => Query::FindNode {
                target: lookup.target,
                want,
            },
            Goal::Peers { .. } => Query::GetPeers {
                info_hash: InfoHashV1(lookup.target.0),
                want,
            },
        })
    }

    /// Whether this is the answer to a query of ours that waits for one from there. Only who was
    /// asked lately costs us a look at what he says.
    pub(super) fn waits_for(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        if !self.asked.contains_key(&from) {
            return false;
        }
        Message::decode(datagram).is_ok_and(|message| {
            let is_query = matches!(message.body, Body::Query { .. });
            !is_query && self.asked_by(from, message.transaction).is_some()
        })
    }

    /// The query that an answer is to: only who was asked knows what to repeat, and only from there
    /// it is believed.
    fn asked_by(&self, from: SocketAddr, transaction: TransactionId) -> Option<(u32, Transaction)> {
        let number = <[u8; 4]>::try_from(transaction.as_bytes()).ok()?;
        let number = u32::from_be_bytes(number);
        let query = self.transactions.get(&number).copied()?;
        (query.to == from).then_some((number, query))
    }

    /// No answer to this one is waited for any more.
    fn forget_query(&mut self, number: u32) {
        let Some(query) = self.transactions.remove(&number) else {
            return;
        };
        if let Some(count) = self.asked.get_mut(&query.to) {
            *count -= 1;
            if *count == 0 {
                self.asked.remove(&query.to);
            }
        }
    }

    /// Takes an answer; `reply` is none if it is an error.
    pub(super) fn take_answer(
        &mut self,
        from: SocketAddr,
        transaction: TransactionId,
        reply: Option<Reply>,
        seen: Option<SocketAddr>,
        now: Time,
    ) {
        let Some((number, query)) = self.asked_by(from, transaction) else {
            self.counters.unsolicited += 1;
            return;
        };
        self.forget_query(number);
        self.deadlines.remove(&(query.due, number));
        self.counters.answers += 1;
        self.sources.prove(Site::of(from), now);
        let Some(reply) = reply else {
            // It lives, and is of no use for this.
            self.failed_for(query);
            return;
        };
        if reply.id == self.id {
            if let Some(id) = query.id {
                self.table.failed(Contact { id, address: from });
            }
            self.failed_for(query);
            return;
        }
        let contact = Contact {
            id: reply.id,
            address: from,
        };
        // Who has another id than last time, since its address is another to others or because it
        // has begun anew, is known by that from now on: its old one will never answer again.
        if self.table.len() <= NODES_FEW || !self.routers.contains(&from) {
            self.table.answered(contact, now);
        }
        if query.id.is_some_and(|id| id != reply.id) {
            // A search is not led by whoever has an id for every torrent.
            self.failed_for(query);
            return;
        }
        if let Some(seen) = seen {
            self.seen_at(from, seen, now);
        }
        match query.purpose {
            Purpose::Ping => {}
            Purpose::Search(lookup) => self.take_found(lookup, from, reply),
            Purpose::Announce(lookup, ..) => self.announce_ended(lookup, true),
        }
    }

    /// What a node answered to a search.
    fn take_found(&mut self, id: LookupId, from: SocketAddr, reply: Reply) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        lookup.answered(from, reply.id, reply.token);
        let mut others = Vec::new();
        for contact in reply.nodes {
            if contact.id == self.id || !may_name(from, contact.address) {
                continue;
            }
            if Family::of(contact.address) == self.family {
                lookup.add(Some(contact.id), contact.address);
            } else {
                others.push(contact);
            }
        }
        let (target, goal) = (lookup.target, lookup.goal);
        if !others.is_empty() {
            self.tell(Event::OtherFamily(others));
        }
        let mut peers = reply.peers;
        peers.retain(|&peer| may_name(from, peer));
        if matches!(goal, Goal::Peers { .. }) && !peers.is_empty() {
            self.tell(Event::Peers {
                lookup: id,
                info_hash: InfoHashV1(target.0),
                peers,
            });
        }
    }

    /// A query has failed: its answer did not come, or was of no use.
    fn failed_for(&mut self, query: Transaction) {
        match query.purpose {
            Purpose::Ping => {}
            Purpose::Search(id) => {
                if let Some(lookup) = self.lookups.get_mut(&id) {
                    lookup.failed(query.to);
                }
            }
            Purpose::Announce(id, ..) => self.announce_ended(id, false),
        }
    }

    /// Looks at the queries whose time has come.
    pub(super) fn expire_transactions(&mut self, now: Time) {
        while let Some(&(due, number)) = self.deadlines.first() {
            if due > now {
                return;
            }
            self.deadlines.pop_first();
            let Some(query) = self.transactions.get_mut(&number) else {
                continue;
            };
            if query.until > now {
                query.due = query.until;
                self.deadlines.insert((query.until, number));
                if let Purpose::Search(id) = query.purpose
                    && let Some(lookup) = self.lookups.get_mut(&id)
                {
                    lookup.slow(query.to);
                }
                continue;
            }
            let query = *query;
            self.forget_query(number);
            self.counters.timeouts += 1;
            if let Some(id) = query.id {
                let address = query.to;
                self.table.failed(Contact { id, address });
            }
            self.failed_for(query);
        }
    }

    /// A search has asked all that it needed: announces, or ends.
    fn finish_search(&mut self, id: LookupId, now: Time) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        let announce = match lookup.goal {
            Goal::Peers { announce } if lookup.announcing.is_none() => announce,
            _ => None,
        };
        let Some(port) = announce else {
            self.end(id);
            return;
        };
        let info_hash = InfoHashV1(lookup.target.0);
        let nearest = lookup.nearest();
        lookup.announcing = Some(0);
        let mut sent = 0;
        for (contact, token) in nearest {
            let purpose = Purpose::Announce(id, info_hash, port, token);
            sent += usize::from(self.ask_ahead(contact, purpose, now));
        }
        match self.lookups.get_mut(&id) {
            Some(lookup) if sent > 0 => lookup.announcing = Some(sent),
            _ => self.end(id),
        }
    }

    /// Sends a query that must not wait, since its token ages: others wait the longer for it.
    fn ask_ahead(&mut self, contact: Contact, purpose: Purpose, now: Time) -> bool {
        if self.transactions.len() >= self.config.transactions_max {
            return false;
        }
        self.queries.charge(&mut self.queries_spent, 1, now);
        self.ask_now(Some(contact.id), contact.address, purpose, now);
        true
    }

    fn announce_ended(&mut self, id: LookupId, taken: bool) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        lookup.announced += usize::from(taken);
        lookup.announcing = lookup.announcing.map(|waiting| waiting.saturating_sub(1));
    }

    /// Ends a search and tells the caller, if it is one of its.
    pub(super) fn end(&mut self, id: LookupId) {
        let is_own = self.own.remove(&id);
        let Some(lookup) = self.lookups.remove(&id) else {
            return;
        };
        if !is_own {
            self.tell(Event::Done {
                lookup: id,
                info_hash: InfoHashV1(lookup.target.0),
                answers: lookup.answers(),
                announced: lookup.announced,
            });
        }
    }

    /// A node has asked us: it may be one for our table, if it answers.
    pub(super) fn ask_back(&mut self, contact: Contact, now: Time) {
        if is_host(contact.address) {
            self.ask(Some(contact.id), contact.address, Purpose::Ping, now);
        }
    }
}
