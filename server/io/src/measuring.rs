//! What a shard counts: session counters and messages into the shard's cells, gauges once a second.

use crate::shard::Shard;
use crate::torrent::SeededTorrent;
use engine::peer_list::{PeerSource, SourceCounts};
use engine::session::SessionCounters;
use proto::wire::Message;
use seedring_metrics::{Counter, Gauge};

impl Shard {
    /// Counts a message by its type.
    pub(crate) fn count_message(&self, message: &Message<'_>) {
        self.cells.increment(match message {
            Message::KeepAlive => Counter::MessagesKeepAlive,
            Message::Choke => Counter::MessagesChoke,
            Message::Unchoke => Counter::MessagesUnchoke,
            Message::Interested => Counter::MessagesInterested,
            Message::NotInterested => Counter::MessagesNotInterested,
            Message::Have(_) => Counter::MessagesHave,
            Message::Bitfield(_) => Counter::MessagesBitfield,
            Message::Request(_) => Counter::MessagesRequest,
            Message::Piece { .. } => Counter::MessagesPiece,
            Message::Cancel(_) => Counter::MessagesCancel,
            Message::Suggest(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::Reject(_)
            | Message::AllowedFast(_) => Counter::MessagesFast,
            Message::Extended { .. } => Counter::MessagesExtended,
            Message::Port(_) | Message::Unknown { .. } => Counter::MessagesOther,
        });
    }

    /// Counts an address that `source` named for a torrent, if it is a new one.
    pub(crate) fn count_found_for(
        &self,
        torrent: &SeededTorrent,
        source: PeerSource,
        is_new: bool,
    ) {
        if is_new {
            torrent.presence().note_named(source);
        }
        self.count_found(source, is_new);
    }

    /// Counts an address that `source` named, if it is a new one.
    pub(crate) fn count_found(&self, source: PeerSource, is_new: bool) {
        if is_new {
            self.cells.increment(match source {
                PeerSource::Tracker => Counter::FoundTracker,
                PeerSource::Dht => Counter::FoundDht,
                PeerSource::Exchange => Counter::FoundExchange,
                PeerSource::Local => Counter::FoundLocal,
                PeerSource::Incoming => Counter::FoundIncoming,
                PeerSource::Given => Counter::FoundGiven,
            });
        }
    }

    /// Counts what a session has done between two readings of its counters.
    pub(crate) fn count_session(&self, before: &SessionCounters, now: &SessionCounters) {
        let add = |counter, now: u64, before: u64| {
            if now != before {
                self.cells.add(counter, now - before);
            }
        };
        add(Counter::RequestsReceived, now.requests, before.requests);
        add(Counter::RequestsServed, now.blocks_sent, before.blocks_sent);
        add(
            Counter::UploadedBytes,
            now.uploaded_bytes,
            before.uploaded_bytes,
        );
        add(
            Counter::RequestsRefused,
            now.requests_refused,
            before.requests_refused,
        );
        add(
            Counter::RequestsIgnored,
            now.requests_ignored,
            before.requests_ignored,
        );
        add(
            Counter::RequestsRejected,
            now.requests_rejected,
            before.requests_rejected,
        );
        add(
            Counter::RequestsDropped,
            now.requests_dropped,
            before.requests_dropped,
        );
        add(Counter::CancelsReceived, now.cancels, before.cancels);
        let (sent, sent_before) = (now.exchanges_sent, before.exchanges_sent);
        add(Counter::ExchangesSent, sent, sent_before);
        let (received, received_before) = (now.exchanges_received, before.exchanges_received);
        add(Counter::ExchangesReceived, received, received_before);
        let (ignored, ignored_before) = (now.exchanges_ignored, before.exchanges_ignored);
        add(Counter::ExchangesIgnored, ignored, ignored_before);
        add(Counter::Chokes, now.chokes, before.chokes);
        add(Counter::Unchokes, now.unchokes, before.unchokes);
        // Who holds a slot now; a connection that leaves gives its slot back by `Registered`.
        let (gained, lost) = (now.unchokes - before.unchokes, now.chokes - before.chokes);
        self.unchoked
            .set((self.unchoked.get() + gained).saturating_sub(lost));
    }

    /// Publishes what is counted by looking.
    pub(crate) fn publish_gauges(&self) {
        let connections = self.connections.borrow();
        let (mut interested, mut queued, mut called) = (0, 0, 0);
        let mut sources = SourceCounts::default();
        for (_, connection) in connections.iter() {
            let session = connection.session.borrow();
            interested += u64::from(session.is_interested());
            queued += u64::from(session.queued_requests());
            called += u64::from(connection.exchange.is_called());
            sources.add(connection.source);
        }
        for source in PeerSource::ALL {
            let gauge = match source {
                PeerSource::Tracker => Gauge::ConnectedTracker,
                PeerSource::Dht => Gauge::ConnectedDht,
                PeerSource::Exchange => Gauge::ConnectedExchange,
                PeerSource::Local => Gauge::ConnectedLocal,
                PeerSource::Incoming => Gauge::ConnectedIncoming,
                PeerSource::Given => Gauge::ConnectedGiven,
            };
            self.cells.set(gauge, sources.get(source).into());
        }
        let connected = connections.len() as u64;
        let sockets = self.sockets.borrow().len() as u64;
        let waiting = self.cells.gauge(Gauge::PeersWaiting);
        let pending = sockets.saturating_sub(connected + waiting);
        self.cells.set(Gauge::PeersConnected, connected);
        self.cells.set(Gauge::PeersInterested, interested);
        self.cells.set(Gauge::PeersCalled, called);
        self.cells.set(Gauge::PeersUnchoked, self.unchoked.get());
        self.cells.set(Gauge::HandshakesPending, pending);
        self.cells.set(Gauge::RequestsQueued, queued);
        self.cells
            .set(Gauge::BufferPoolUsedBytes, self.pool.used_bytes() as u64);
        if let Some(direct) = &self.direct {
            self.cells
                .set(Gauge::CacheUsedBytes, direct.used_bytes() as u64);
        }
        self.cells.set(Gauge::MappedBytes, self.windows.bytes());
        self.cells.set(Gauge::FilesOpen, self.files.len() as u64);
    }
}
