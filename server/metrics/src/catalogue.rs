//! Every metric of the data plane and the control plane, declared once.
//!
//! Names follow Prometheus: a `seedring_` prefix, base units (bytes, seconds), counters end in
//! `_total`. A family is `per_shard` (one series a shard, label `shard`) where an operator needs to
//! see imbalance, else `summed` over shards. Labels have one fixed set of values each.
//!
//! Metrics of the process (CPU, memory, descriptors) are read from `/proc` by the exporter.

/// How the cells of a family become series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One series a shard, with the label `shard`.
    PerShard,
    /// The sum over all shards.
    Summed,
}

/// One metric name with its help and its series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The Prometheus name.
    pub name: &'static str,
    /// What it means, for an operator who sees it for the first time.
    pub help: &'static str,
    /// Whether shards are told apart.
    pub scope: Scope,
    /// The label that tells the series apart, where there is more than one.
    pub label: Option<&'static str>,
    /// The series, in the order declared.
    pub series: &'static [Series],
}

/// One series of a family.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// The cell: the metric's position in its enum.
    pub index: usize,
    /// The value of the family's label.
    pub value: Option<&'static str>,
}

/// An enum of metrics of one kind: its variants index a fixed array of cells.
pub trait Metric: Copy {
    /// The families, in the order declared.
    const FAMILIES: &'static [Family];
    /// How many cells there are.
    const COUNT: usize;
    /// This metric's cell.
    fn index(self) -> usize;
}

macro_rules! option {
    () => {
        None
    };
    ($value:literal) => {
        Some($value)
    };
}

macro_rules! scope {
    (per_shard) => {
        Scope::PerShard
    };
    (summed) => {
        Scope::Summed
    };
}

/// Declares an enum of metrics: `scope "name", "help" by "label" { Variant = "value", … }`.
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $Enum:ident {
            $(
                $scope:ident $name:literal, $help:literal $(, by $label:literal)?
                { $( $variant:ident $(= $value:literal)? ),+ $(,)? }
            )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum $Enum {
            $($(
                #[doc = concat!("`", $name, "`", $(" (`", $value, "`)",)? ": ", $help)]
                $variant,
            )+)+
        }

        impl Metric for $Enum {
            const FAMILIES: &'static [Family] = &[
                $(
                    Family {
                        name: $name,
                        help: $help,
                        scope: scope!($scope),
                        label: option!($($label)?),
                        series: &[
                            $(
                                Series {
                                    index: $Enum::$variant as usize,
                                    value: option!($($value)?),
                                },
                            )+
                        ],
                    },
                )+
            ];
            const COUNT: usize = [$($($Enum::$variant),+),+].len();
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

metrics! {
    /// Counters of a shard. Only that shard's thread may add to them.
    Counter {
        per_shard "seedring_uploaded_bytes_total",
            "Payload bytes of blocks handed to the kernel for peers, without message headers."
            { UploadedBytes }
        per_shard "seedring_downloaded_bytes_total",
            "Payload bytes of blocks received from peers, without message headers."
            { DownloadedBytes }
        summed "seedring_protocol_bytes_total",
            "Bytes of the peer protocol other than payload: handshakes, headers and messages.",
            by "direction" { ProtocolBytesSent = "sent", ProtocolBytesReceived = "received" }

        per_shard "seedring_connections_accepted_total",
            "TCP connections accepted from peers."
            { ConnectionsAccepted }
        summed "seedring_connections_refused_total",
            "Connections closed before their handshake was read, by the limit that they met, or by the address filter.",
            by "reason" {
                RefusedConnectionLimit = "connections_max",
                RefusedAddressLimit = "connections_per_address_max",
                RefusedHandshakeLimit = "handshakes_max",
                RefusedFilter = "ip_filter",
            }
        summed "seedring_accept_errors_total",
            "Errors of accept, by cause; descriptors means that the process has none left.",
            by "reason" { AcceptErrorDescriptors = "descriptors", AcceptErrorOther = "other" }
        summed "seedring_connections_closed_total",
            "Connections closed after their handshake, by reason.",
            by "reason" {
                ClosedByPeer = "peer",
                ClosedReset = "reset",
                ClosedIdle = "idle",
                ClosedStalled = "stalled",
                ClosedProtocol = "protocol_error",
                ClosedFlood = "flood",
                ClosedTorrent = "torrent_stopped",
                ClosedStorage = "storage_error",
                ClosedStopping = "stopping",
                ClosedBanned = "banned",
                ClosedDuplicate = "duplicate",
                ClosedFiltered = "ip_filter",
                ClosedOther = "other",
            }
        per_shard "seedring_handshakes_total",
            "Handshakes completed with peers."
            { Handshakes }
        summed "seedring_handshakes_failed_total",
            "Handshakes that did not complete, by reason.",
            by "reason" {
                HandshakeTimeout = "timeout",
                HandshakeClosed = "closed",
                HandshakeProtocol = "protocol",
                HandshakeUnknownTorrent = "unknown_torrent",
                HandshakeSelf = "self",
                HandshakeAsleep = "dormant_torrent",
            }
        summed "seedring_dormant_waits_total",
            "Peers that waited for a dormant torrent to be loaded, by what came of it: served, refused \
             (it cannot be served), timeout, or full (too many peers waited; it was closed at once).",
            by "result" {
                WaitsServed = "served",
                WaitsRefused = "refused",
                WaitsTimedOut = "timeout",
                WaitsFull = "full",
            }

        per_shard "seedring_requests_received_total",
            "Block requests received from peers."
            { RequestsReceived }
        per_shard "seedring_requests_served_total",
            "Block requests answered in full with payload."
            { RequestsServed }
        summed "seedring_requests_rejected_total",
            "Block requests answered by a reject message (fast extension): refused on arrival, or \
             given up later because of a cancel, a choke or a failure.",
            by "reason" { RequestsRefused = "refused", RequestsRejected = "given_up" }
        summed "seedring_requests_dropped_total",
            "Block requests of peers without the fast extension that got no answer: ignored on \
             arrival, or given up later because of a cancel, a choke or a failure.",
            by "reason" { RequestsIgnored = "ignored", RequestsDropped = "given_up" }
        summed "seedring_cancels_received_total",
            "Cancel messages from peers, whether or not the request was still queued."
            { CancelsReceived }
        summed "seedring_messages_received_total",
            "Messages received from peers, by type.",
            by "type" {
                MessagesKeepAlive = "keep_alive",
                MessagesChoke = "choke",
                MessagesUnchoke = "unchoke",
                MessagesInterested = "interested",
                MessagesNotInterested = "not_interested",
                MessagesHave = "have",
                MessagesBitfield = "bitfield",
                MessagesRequest = "request",
                MessagesPiece = "piece",
                MessagesCancel = "cancel",
                MessagesFast = "fast",
                MessagesExtended = "extended",
                MessagesOther = "other",
            }
        summed "seedring_peer_exchange_messages_total",
            "Messages of peer exchange (BEP 11), by what became of them: sent to peers, received, or ignored because they came too soon.",
            by "result" { ExchangesSent = "sent", ExchangesReceived = "received", ExchangesIgnored = "ignored" }
        summed "seedring_peers_found_total",
            "Peers found, by how: incoming counts connections that came to us and shook hands, each time; the others count addresses that were new to their torrent, by who named them (those that trackers named count here only where they are to be called).",
            by "source" {
                FoundTracker = "tracker",
                FoundDht = "dht",
                FoundExchange = "pex",
                FoundLocal = "lsd",
                FoundIncoming = "incoming",
                FoundGiven = "given",
            }
        summed "seedring_choke_changes_total",
            "Peers choked and unchoked by us.",
            by "change" { Chokes = "choke", Unchokes = "unchoke" }
        summed "seedring_rate_limit_waits_total",
            "Times that a peer with requests, or a download, had to wait, by the limit that made it wait.",
            by "limit" { RateWaitsGlobal = "global", RateWaitsTorrent = "torrent",
                RateWaitsClass = "class", RateWaitsDownload = "download",
                RateWaitsTorrentDownload = "torrent_download" }

        summed "seedring_sends_total",
            "Batches of blocks sent, by their path (storage.send_path); requests served divided by this is the coalescing.",
            by "path" { SendsSplice = "splice", SendsRing = "ring", SendsDirect = "direct" }
        summed "seedring_partial_sends_total",
            "Sends that the socket took only a part of, so that the rest waited."
            { PartialSends }
        summed "seedring_wasted_bytes_total",
            "Payload bytes received that were of no use: sent twice, never asked for, or of a piece whose hash was wrong."
            { WastedBytes }
        summed "seedring_downloaded_pieces_total",
            "Pieces of downloads by what came of them: stored (verified and written) or failed (their hash was wrong).",
            by "result" { PiecesStored = "stored", HashFailures = "failed" }
        summed "seedring_peers_banned_total",
            "Peers that were closed and are kept away because they sent wrong data or metadata."
            { PeersBanned }
        summed "seedring_connects_total",
            "Connections that we began to peers, or would have begun but for the address filter, by what came of them.",
            by "result" { ConnectsDone = "connected", ConnectsRefused = "refused", ConnectsTimedOut = "timeout",
                ConnectsFiltered = "ip_filter" }
        per_shard "seedring_disk_writes_total",
            "Writes of downloaded data, coalesced over blocks."
            { DiskWrites }
        per_shard "seedring_disk_write_bytes_total",
            "Bytes of downloaded data written."
            { DiskWriteBytes }
        summed "seedring_write_errors_total",
            "Failed writes and syncs of downloads; each one pauses its torrent until the disk works again."
            { WriteErrors }
        per_shard "seedring_disk_reads_total",
            "Reads of torrent data, from the page cache or the disk, coalesced over requests."
            { DiskReads }
        per_shard "seedring_disk_read_bytes_total",
            "Bytes of torrent data read; divided by uploaded bytes this is the read amplification."
            { DiskReadBytes }
        summed "seedring_disk_errors_total",
            "Failures of torrent data, by kind; each one puts its torrent into the error state.",
            by "kind" {
                DiskErrorOpen = "open",
                DiskErrorRead = "read",
                DiskErrorTruncated = "truncated",
                DiskErrorChanged = "changed",
            }
        per_shard "seedring_buffer_pool_waits_total",
            "Times that a read waited because every buffer of the shard's pool was in use."
            { BufferPoolWaits }
        summed "seedring_cache_lookups_total",
            "Look-ups in the cache of chunks (storage.send_path = \"direct\") by the result: joined means \
             that another peer's read brings the bytes.",
            by "result" { CacheHits = "hit", CacheJoined = "joined", CacheMisses = "miss" }
        summed "seedring_cache_evictions_total",
            "Chunks that left the cache for others, by whether a peer had used them; many unused ones \
             mean that storage.cache_bytes is too small for the number of peers.",
            by "use" { CacheEvictions = "used", CacheEvictionsUnused = "unused" }
        summed "seedring_cache_waits_total",
            "Times that a read waited because every chunk of the cache was in use."
            { CacheWaits }
        summed "seedring_file_lookups_total",
            "Look-ups of an open file by the result; a miss opens the file.",
            by "result" { FileHits = "hit", FileMisses = "miss" }
        summed "seedring_file_evictions_total",
            "Files closed to stay under storage.open_files_max."
            { FileEvictions }
        per_shard "seedring_ring_submissions_total",
            "Operations submitted to the shard's io_uring."
            { RingSubmissions }
    }
}

metrics! {
    /// Gauges of a shard. Only that shard's thread may change them.
    Gauge {
        per_shard "seedring_peers_connected",
            "Peers whose handshake is done."
            { PeersConnected }
        summed "seedring_peers_called",
            "Connected peers to which the connection was begun by us."
            { PeersCalled }
        summed "seedring_peers_connected_by_source",
            "Peers whose handshake is done, by how we met: incoming came to us, now or once before, the others were called at an address that this source named.",
            by "source" {
                ConnectedTracker = "tracker",
                ConnectedDht = "dht",
                ConnectedExchange = "pex",
                ConnectedLocal = "lsd",
                ConnectedIncoming = "incoming",
                ConnectedGiven = "given",
            }
        summed "seedring_peers_interested",
            "Connected peers that are interested in our data."
            { PeersInterested }
        summed "seedring_peers_unchoked",
            "Connected peers that may request from us."
            { PeersUnchoked }
        summed "seedring_handshakes_pending",
            "Accepted connections whose handshake is not done yet."
            { HandshakesPending }
        summed "seedring_peers_waiting",
            "Peers that wait for a dormant torrent to be loaded."
            { PeersWaiting }
        summed "seedring_requests_queued",
            "Block requests that wait to be served."
            { RequestsQueued }
        per_shard "seedring_buffer_pool_bytes",
            "Size of the shard's pool of buffers."
            { BufferPoolBytes }
        per_shard "seedring_buffer_pool_used_bytes",
            "Bytes of the pool that reads and sends are using now."
            { BufferPoolUsedBytes }
        per_shard "seedring_cache_bytes",
            "Size of the shard's cache of chunks; 0 unless storage.send_path is \"direct\"."
            { CacheBytes }
        per_shard "seedring_cache_used_bytes",
            "Bytes of the cache of chunks that hold data or are being read into."
            { CacheUsedBytes }
        per_shard "seedring_mapped_bytes",
            "Bytes of files that the shard has mapped to send pages of them; those in memory count as \
             resident memory of the process."
            { MappedBytes }
        summed "seedring_files_open",
            "Files of torrents that are open now."
            { FilesOpen }
    }
}

metrics! {
    /// Latency histograms of a shard. Only that shard's thread may record into them.
    Histogram {
        summed "seedring_request_duration_seconds",
            "Time from a block request's arrival to its payload being handed to the kernel."
            { RequestDuration }
        summed "seedring_disk_read_duration_seconds",
            "Time that a read of torrent data took, from submission to completion."
            { DiskReadDuration }
        summed "seedring_disk_sync_duration_seconds",
            "Time that forcing what was written since the last time to the disk took."
            { DiskSyncDuration }
        summed "seedring_handshake_duration_seconds",
            "Time from accept to a completed handshake, not counting the wait for a dormant torrent."
            { HandshakeDuration }
        summed "seedring_wake_wait_seconds",
            "Time that a peer waited for its torrent, which was dormant, until it was served."
            { WakeWait }
    }
}

metrics! {
    /// Counters of the control plane. Any thread may add to them.
    ControlCounter {
        summed "seedring_announces_total",
            "Announces to trackers that ended, by result.",
            by "result" { AnnouncesOk = "ok", AnnouncesRefused = "refused",
                AnnouncesFailed = "failed" }
        summed "seedring_announces_sent_total",
            "Announces sent to trackers, by event.",
            by "event" { AnnouncesStarted = "started", AnnouncesRegular = "none",
                AnnouncesCompleted = "completed", AnnouncesStopped = "stopped" }
        summed "seedring_scrapes_total",
            "Scrapes of trackers that ended, by result.",
            by "result" { ScrapesOk = "ok", ScrapesRefused = "refused",
                ScrapesFailed = "failed" }
        summed "seedring_udp_tracker_datagrams_ignored_total",
            "Datagrams to our announces over UDP that answer nothing we asked."
            { UdpTrackerDatagramsIgnored }
        summed "seedring_announce_peers_total",
            "Peer addresses received in answers of trackers."
            { AnnouncePeers }
        summed "seedring_lsd_datagrams_total",
            "Datagrams of local discovery (BEP 14), by what became of them: sent, not sent because of an error, received of others, or ignored because they were no announcement or too many.",
            by "result" { LsdSent = "sent", LsdFailed = "failed", LsdReceived = "received", LsdIgnored = "ignored" }
        summed "seedring_dht_datagrams_received_total",
            "Datagrams received by our DHT nodes."
            { DhtReceived }
        summed "seedring_dht_datagrams_dropped_total",
            "Datagrams to our DHT nodes that were not answered, by reason: muted (their source \
             sends too many), malformed, unsolicited (answers to nothing that we asked), rate \
             (dht.reply_bytes_per_second), read_only.",
            by "reason" {
                DhtDroppedMuted = "muted",
                DhtDroppedMalformed = "malformed",
                DhtDroppedUnsolicited = "unsolicited",
                DhtDroppedRate = "rate",
                DhtDroppedReadOnly = "read_only",
            }
        summed "seedring_dht_bytes_total",
            "Bytes of DHT datagrams, without headers.",
            by "direction" { DhtBytesIn = "in", DhtBytesOut = "out" }
        summed "seedring_dht_queries_answered_total",
            "Queries of other DHT nodes that we answered."
            { DhtQueriesAnswered }
        summed "seedring_dht_queries_sent_total",
            "Queries sent to other DHT nodes."
            { DhtQueriesSent }
        summed "seedring_dht_queries_unanswered_total",
            "Queries to other DHT nodes that nobody answered in time."
            { DhtQueriesUnanswered }
        summed "seedring_dht_announces_received_total",
            "Announces of others to our DHT nodes, by what came of them: stored, or refused (a \
             wrong token, or no room).",
            by "result" { DhtAnnouncesStored = "stored", DhtAnnouncesRefused = "refused" }
        summed "seedring_dht_searches_total",
            "Searches for our torrents in the DHT that ended, by result: announced (some node \
             took our announce), answered (some node answered), unanswered.",
            by "result" {
                DhtSearchesAnnounced = "announced",
                DhtSearchesAnswered = "answered",
                DhtSearchesUnanswered = "unanswered",
            }
        summed "seedring_dht_peers_found_total",
            "Peer addresses received in answers of DHT nodes, the same ones counted again."
            { DhtPeersFound }
        summed "seedring_tracker_requests_total",
            "Requests to the embedded tracker that were answered, by kind.",
            by "kind" { TrackerAnnounces = "announce", TrackerScrapes = "scrape" }
        summed "seedring_tracker_requests_refused_total",
            "Requests to the embedded tracker that were refused, by reason.",
            by "reason" {
                TrackerRefusedInvalid = "invalid",
                TrackerRefusedUnlisted = "unlisted_torrent",
                TrackerRefusedFull = "full",
                TrackerRefusedRate = "rate",
                TrackerRefusedConnections = "connections",
                TrackerRefusedConnectionId = "connection_id",
            }
        summed "seedring_tracker_udp_replies_dropped_total",
            "Replies of the embedded tracker that the kernel did not take: the network is slower."
            { TrackerUnsentReplies }
        summed "seedring_wakes_total",
            "Dormant torrents that peers came for, by what was done: awake (loaded and served) or refused.",
            by "result" { WakesDone = "awake", WakesRefused = "refused" }
        summed "seedring_torrents_retired_total",
            "Times that a torrent without peers fell asleep."
            { TorrentsRetired }
        summed "seedring_verified_bytes_total",
            "Bytes hashed, to make torrents or to check data against them."
            { VerifiedBytes }
        summed "seedring_pieces_checked_total",
            "Pieces checked against their hash, by result.",
            by "result" { PiecesGood = "good", PiecesBad = "bad" }
        summed "seedring_log_events_total",
            "Log events of all levels that the log is configured to show.",
            by "level" { LogError = "error", LogWarn = "warn", LogInfo = "info",
                LogDebug = "debug", LogTrace = "trace" }
        summed "seedring_log_dropped_total",
            "Log lines dropped because stderr was not read; logging never stops the server."
            { LogDropped }
        summed "seedring_http_requests_total",
            "Requests to the HTTP port, by status class.",
            by "status" { HttpOk = "2xx", HttpRedirect = "3xx", HttpClientError = "4xx",
                HttpServerError = "5xx" }
        summed "seedring_http_refused_total",
            "HTTP connections and requests refused before they reached a handler, by reason.",
            by "reason" { HttpRefusedHost = "host", HttpRefusedConnections = "connections_max",
                HttpRefusedMethod = "method" }
        summed "seedring_api_requests_total",
            "Requests to the HTTP API that were let in, by what they ask.",
            by "class" { ApiList = "list", ApiTorrent = "torrent", ApiAdd = "add",
                ApiChange = "change", ApiBulk = "bulk", ApiChanges = "changes",
                ApiEvents = "events", ApiServer = "server" }
        summed "seedring_api_refused_total",
            "Requests to the HTTP API that were refused, by reason: a wrong token or password, too many of those from one address, a web page of another origin, a body that is too long, too many listeners.",
            by "reason" { ApiRefusedLogin = "login", ApiRefusedLogins = "logins_max",
                ApiRefusedOrigin = "origin", ApiRefusedBody = "body_max",
                ApiRefusedListener = "listeners_max" }
        summed "seedring_watched_files_total",
            "Files in watch folders that were dealt with, by what came of them: added, present (the \
             torrent was there already), invalid (renamed to NAME.invalid), deferred (they could not be \
             read or added now, and are tried again).",
            by "result" { WatchedAdded = "added", WatchedPresent = "present",
                WatchedInvalid = "invalid", WatchedDeferred = "deferred" }
        summed "seedring_hooks_total",
            "Times that a hook was told of an event, by what came of it: ok, failed, timeout (hook.timeout_s).",
            by "result" { HooksOk = "ok", HooksFailed = "failed", HooksTimedOut = "timeout" }
        summed "seedring_hook_events_dropped_total",
            "Events that a hook was not told because too many waited for it."
            { HookEventsDropped }
    }
}

metrics! {
    /// Gauges of the control plane. Any thread may change them.
    ControlGauge {
        summed "seedring_ready",
            "1 while the server is ready: listening, and its torrents are loaded."
            { Ready }
        summed "seedring_api_listeners",
            "Clients that listen to the API's events."
            { ApiListeners }
        summed "seedring_hook_events_waiting",
            "Events that wait for hooks, counted once for each hook."
            { HookEventsWaiting }
        summed "seedring_watch_folders_absent",
            "Watch folders that are not there or cannot be read."
            { WatchFoldersAbsent }
        summed "seedring_shards",
            "Shards that are running."
            { Shards }
        summed "seedring_torrents",
            "Torrents by state.",
            by "state" {
                TorrentsLoading = "loading",
                TorrentsSeeding = "seeding",
                TorrentsError = "error",
            }
        summed "seedring_torrents_served",
            "Complete torrents that are served: awake ones are in memory, dormant ones are loaded when a peer comes.",
            by "state" { TorrentsAwake = "awake", TorrentsDormant = "dormant" }
        summed "seedring_wakes_pending",
            "Dormant torrents that peers wait for."
            { WakesPending }
        summed "seedring_torrent_bytes",
            "Payload bytes of all torrents that are loaded."
            { TorrentBytes }
        summed "seedring_connections_max",
            "The limit of peer connections, peers.connections_max."
            { ConnectionsMax }
        summed "seedring_upload_rate_limit_bytes",
            "The limit of upload of the server now, in bytes per second; 0 is unlimited."
            { UploadRateLimit }
        summed "seedring_download_rate_limit_bytes",
            "The limit of download of the server now, in bytes per second; 0 is unlimited."
            { DownloadRateLimit }
        summed "seedring_ip_filter_ranges",
            "Ranges of addresses that peers.ip_filter keeps away, those that touch counted as one."
            { IpFilterRanges }
        summed "seedring_ip_filter_malformed_lines",
            "Lines of the lists in peers.ip_filter that were not understood; the log names the first ones."
            { IpFilterMalformed }
        summed "seedring_announces_overdue",
            "Announces whose time came over a minute ago but that were not sent yet."
            { AnnouncesOverdue }
        summed "seedring_announces_in_flight",
            "Announces that wait for the answer of a tracker."
            { AnnouncesInFlight }
        summed "seedring_trackers_failing",
            "Pairs of torrent and tracker whose last announce failed."
            { TrackersFailing }
        summed "seedring_dht_nodes",
            "Nodes of the DHT that we know, by address family.",
            by "family" { DhtNodesV4 = "ipv4", DhtNodesV6 = "ipv6" }
        summed "seedring_dht_stored_peers",
            "Peers that our DHT nodes store for others."
            { DhtStoredPeers }
        summed "seedring_dht_torrents",
            "Torrents that are announced in the DHT."
            { DhtTorrents }
        summed "seedring_dht_searches_overdue",
            "Searches in the DHT whose time came over a minute ago but that were not begun yet."
            { DhtSearchesOverdue }
        summed "seedring_tracker_torrents",
            "Torrents that the embedded tracker knows."
            { TrackerTorrents }
        summed "seedring_tracker_peers",
            "Peers that the embedded tracker holds."
            { TrackerPeers }
    }
}

metrics! {
    /// Latency histograms of the control plane. Any thread may record into them.
    ControlHistogram {
        summed "seedring_announce_duration_seconds",
            "Time that an announce took, from its first byte to the end of the answer."
            { AnnounceDuration }
        summed "seedring_tracker_request_duration_seconds",
            "Time that the embedded tracker took to answer a request."
            { TrackerRequestDuration }
        summed "seedring_http_request_duration_seconds",
            "Time that the HTTP port took to answer a request; of events, until they begin."
            { HttpRequestDuration }
    }
}
