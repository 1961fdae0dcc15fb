//! UDP requests over real sockets, against hand-made trackers, hostile ones among them.

use std::sync::atomic::AtomicUsize;

use proto::ids::{InfoHashV1, PeerId};
use proto::tracker::udp::{
    InfoHashes, UdpAnnounce, UdpAnnounceCounts, UrlData, encode_announce_reply,
};
use proto::tracker::{AnnounceEvent, Failure};
use seedring_metrics::Registry;

use super::*;

/// Soon enough for a test, and far longer than loopback takes.
const SOON: Duration = Duration::from_millis(300);

/// What a hand-made tracker sends back: datagrams, each from its own socket or a stranger's.
pub(in crate::announce) enum Send {
    Own(Vec<u8>),
    Stranger(Vec<u8>),
}

/// Announces and their URL data.
type Announces = Arc<Mutex<Vec<(UdpAnnounce, Vec<u8>)>>>;

/// A hand-made UDP tracker that counts what it is asked.
pub(in crate::announce) struct Server {
    pub address: SocketAddr,
    pub connects: Arc<AtomicUsize>,
    pub others: Arc<AtomicUsize>,
    /// The announces, in the order in which they came.
    pub announces: Announces,
}

impl Server {
    /// Starts it; `say` gets each request and how many of its kind came before.
    pub async fn start(
        bind: &str,
        say: impl Fn(&UdpRequest<'_>, usize) -> Vec<Send> + std::marker::Send + Sync + 'static,
    ) -> Server {
        let socket = UdpSocket::bind(bind).await.unwrap();
        let address = socket.local_addr().unwrap();
        let stranger = UdpSocket::bind(SocketAddr::new(address.ip(), 0))
            .await
            .unwrap();
        let (connects, others) = (Arc::default(), Arc::default());
        let server = Server {
            address,
            connects,
            others,
            announces: Arc::default(),
        };
        let (connects, others) = (server.connects.clone(), server.others.clone());
        let announces = server.announces.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(request) = UdpRequest::decode(&buffer[..length]) else {
                    panic!("a request that is none: {:?}", &buffer[..length])
                };
                let before = match &request {
                    UdpRequest::Connect { .. } => &connects,
                    _ => &others,
                };
                if let UdpRequest::Announce {
                    announce, url_data, ..
                } = &request
                {
                    announces
                        .lock()
                        .unwrap()
                        .push((*announce, url_data.to_vec()));
                }
                let before: usize = before.fetch_add(1, Ordering::Relaxed);
                for send in say(&request, before) {
                    let sent = match send {
                        Send::Own(datagram) => socket.send_to(&datagram, from).await,
                        Send::Stranger(datagram) => stranger.send_to(&datagram, from).await,
                    };
                    sent.unwrap();
                }
            }
        });
        server
    }

    /// One that answers everything rightly, with this peer.
    pub async fn good(bind: &str, peer: &'static str) -> Server {
        Server::start(bind, move |request, _| vec![Send::Own(good(request, peer))]).await
    }

    pub fn count(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (load(&self.connects), load(&self.others))
    }
}

pub(in crate::announce) const GOOD_ID: UdpConnectionId = UdpConnectionId(0x1122_3344_5566_7788);

/// The right answer to a request.
pub(in crate::announce) fn good(request: &UdpRequest<'_>, peer: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match request {
        UdpRequest::Connect { transaction } => {
            let reply = UdpReply::Connect {
                transaction: *transaction,
                connection: GOOD_ID,
            };
            reply.encode(AddressFamily::V4, &mut out);
        }
        UdpRequest::Announce { transaction, .. } => {
            let counts = UdpAnnounceCounts {
                interval_seconds: 1800,
                leechers: 1,
                seeders: 2,
            };
            let peer: SocketAddr = peer.parse().unwrap();
            let family = AddressFamily::of(peer);
            encode_announce_reply(*transaction, counts, [peer], family, &mut out);
        }
        UdpRequest::Scrape {
            transaction,
            info_hashes,
            ..
        } => {
            let files = info_hashes.iter().map(|hash| proto::tracker::ScrapeFile {
                complete: hash.0[0].into(),
                downloaded: 7,
                incomplete: 8,
            });
            let reply = UdpReply::Scrape {
                transaction: *transaction,
                files: files.collect(),
            };
            reply.encode(AddressFamily::V4, &mut out);
        }
    }
    out
}

/// A refusal of any request.
pub(in crate::announce) fn error(request: &UdpRequest<'_>, reason: &str) -> Vec<u8> {
    let (UdpRequest::Connect { transaction }
    | UdpRequest::Announce { transaction, .. }
    | UdpRequest::Scrape { transaction, .. }) = request;
    let failure = Failure {
        reason: reason.to_owned(),
        retry_in: None,
    };
    let reply = UdpReply::Error {
        transaction: *transaction,
        failure,
    };
    let mut out = Vec::new();
    reply.encode(AddressFamily::V4, &mut out);
    out
}

fn is_connect(request: &UdpRequest<'_>) -> bool {
    matches!(request, UdpRequest::Connect { .. })
}

fn client() -> UdpClient {
    UdpClient::repeating(Binding::default(), Registry::new(0).control(), SOON)
}

fn announce(connection: UdpConnectionId, transaction: TransactionId) -> Vec<u8> {
    let mut out = Vec::new();
    let announce = UdpAnnounce {
        info_hash: InfoHashV1([1; 20]),
        peer_id: PeerId([2; 20]),
        downloaded_bytes: 0,
        left_bytes: 1,
        uploaded_bytes: 0,
        event: AnnounceEvent::None,
        ip: 0,
        key: 3,
        peers_wanted: Some(50),
        port: 6890,
    };
    let request = UdpRequest::Announce {
        connection,
        transaction,
        announce,
        url_data: UrlData::NONE,
    };
    request.encode(&mut out);
    out
}

async fn ask(client: &UdpClient, server: &Server) -> Result<UdpReply, String> {
    client.ask(&[server.address], announce).await
}

fn peers(reply: Result<UdpReply, String>) -> Vec<SocketAddr> {
    match reply {
        Ok(UdpReply::Announce { success, .. }) => {
            success.peers.iter().map(|peer| peer.address).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_connection_id_does_for_all_torrents() {
    for (bind, peer) in [("127.0.0.1:0", "1.2.3.4:5"), ("[::1]:0", "[2001:db8::1]:5")] {
        let server = Server::good(bind, peer).await;
        let client = Arc::new(client());
        let asks = (0..50).map(|_| {
            let (client, address) = (client.clone(), server.address);
            tokio::spawn(async move { client.ask(&[address], announce).await })
        });
        for asked in asks.collect::<Vec<_>>() {
            assert_eq!(peers(asked.await.unwrap()), [peer.parse().unwrap()]);
        }
        assert_eq!(server.count(), (1, 50));
    }
}

#[tokio::test]
async fn an_id_of_more_than_a_minute_is_not_used() {
    let server = Server::good("127.0.0.1:0", "1.2.3.4:5").await;
    let client = client();
    peers(ask(&client, &server).await);
    let cell = client.cell(server.address);
    let (id, since) = cell.lock().await.unwrap();
    let Some(before) = since.checked_sub(CONNECTION_KEPT) else {
        println!("skipped: the machine has been up for less than a minute");
        return;
    };
    *cell.lock().await = Some((id, before));
    peers(ask(&client, &server).await);
    assert_eq!(server.count(), (2, 2));
}

#[tokio::test]
async fn replies_of_strangers_and_to_other_requests_are_ignored() {
    let server = Server::start("127.0.0.1:0", |request, _| {
        let right = good(request, "1.2.3.4:5");
        let mut other = right.clone();
        other[7] ^= 1; // another transaction
        let lie = good(request, "6.6.6.6:6");
        vec![
            Send::Stranger(lie),
            Send::Stranger(error(request, "go away")),
            Send::Own(other),
            Send::Own(b"short".to_vec()),
            Send::Own(right.clone()),
            Send::Own(right), // once more
        ]
    })
    .await;
    let client = client();
    assert_eq!(
        peers(ask(&client, &server).await),
        ["1.2.3.4:5".parse().unwrap()]
    );
    assert!(
        client
            .socket(server.address)
            .is_ok_and(|s| s.waiting.lock().is_empty())
    );
    // Both rounds have 5 that are ignored; the very last may be on its way still.
    while client
        .cells
        .counter(ControlCounter::UdpTrackerDatagramsIgnored)
        < 10
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_flood_of_spoofed_replies_changes_nothing() {
    let server = Server::start("127.0.0.1:0", |request, _| {
        let flood = (0..2000u32).map(|number| {
            let mut lie = good(request, "6.6.6.6:6");
            if number % 2 == 0 {
                // From the right address, with a guessed transaction.
                lie[4..8].copy_from_slice(&number.to_be_bytes());
                Send::Own(lie)
            } else {
                Send::Stranger(lie)
            }
        });
        let right = Send::Own(good(request, "1.2.3.4:5"));
        flood.chain([right]).collect()
    })
    .await;
    let client = client();
    // The flood may push the right one out of the socket's buffer: then it is asked again.
    assert_eq!(
        peers(ask(&client, &server).await),
        ["1.2.3.4:5".parse().unwrap()]
    );
    assert_eq!(client.lock_connections().len(), 1);
}

#[tokio::test]
async fn a_stale_id_is_renewed() {
    // Says so, or says nothing, to the second announce with the first id.
    for silent in [false, true] {
        let server = Server::start("127.0.0.1:0", move |request, before| {
            if !is_connect(request) && before == 1 {
                let error = error(request, "Connection ID missmatch.");
                return if silent {
                    vec![]
                } else {
                    vec![Send::Own(error)]
                };
            }
            vec![Send::Own(good(request, "1.2.3.4:5"))]
        })
        .await;
        let client = client();
        peers(ask(&client, &server).await);
        peers(ask(&client, &server).await);
        assert_eq!(server.count(), (2, 3));
    }
}

#[tokio::test]
async fn a_refusal_is_no_reason_to_connect_again() {
    let server = Server::start("127.0.0.1:0", |request, _| {
        vec![Send::Own(match is_connect(request) {
            true => good(request, ""),
            false => error(request, "torrent not registered"),
        })]
    })
    .await;
    let client = client();
    for _ in 0..3 {
        let reply = ask(&client, &server).await;
        assert!(matches!(reply, Ok(UdpReply::Error { failure, .. })
            if failure.reason == "torrent not registered"));
    }
    assert_eq!(server.count(), (1, 3));
    // One that always says that the id is wrong is believed once for each request.
    let server = Server::start("127.0.0.1:0", |request, _| {
        vec![Send::Own(match is_connect(request) {
            true => good(request, ""),
            false => error(request, "bad connection id"),
        })]
    })
    .await;
    for _ in 0..2 {
        assert!(matches!(
            ask(&client, &server).await,
            Ok(UdpReply::Error { .. })
        ));
    }
    assert_eq!(server.count(), (2, 3));
}

#[tokio::test]
async fn what_is_lost_is_asked_again() {
    let server = Server::start("127.0.0.1:0", |request, before| match before {
        0 => vec![],
        _ => vec![Send::Own(good(request, "1.2.3.4:5"))],
    })
    .await;
    let client = client();
    assert_eq!(peers(ask(&client, &server).await).len(), 1);
    let (connects, announces) = server.count();
    assert!(connects >= 2 && announces == 2, "{connects} {announces}");
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let dead = Server::start("127.0.0.1:0", |_, _| vec![]).await;
    let server = Server::good("127.0.0.1:0", "1.2.3.4:5").await;
    let client = client();
    let reply = client.ask(&[dead.address, server.address], announce).await;
    assert_eq!(peers(reply).len(), 1);
    assert_eq!(dead.count(), (1, 0));
    let nobody = client.ask(&[], announce).await;
    assert_eq!(nobody.unwrap_err(), "it has no address");
}

#[tokio::test]
async fn garbage_from_the_tracker_is_an_error() {
    for connects in [true, false] {
        let server = Server::start("127.0.0.1:0", move |request, _| {
            let mut reply = good(request, "1.2.3.4:5");
            if is_connect(request) == connects {
                reply.truncate(10);
            }
            vec![Send::Own(reply)]
        })
        .await;
        let error = ask(&client(), &server).await.unwrap_err();
        assert!(error.contains("10 bytes"), "{error}");
    }
    let swapped = Server::start("127.0.0.1:0", |request, _| {
        let mut reply = good(request, "1.2.3.4:5");
        reply[3] ^= 1; // connect for announce and back
        reply.resize(24, 0);
        vec![Send::Own(reply)]
    })
    .await;
    assert!(ask(&client(), &swapped).await.is_err());
}

#[tokio::test]
async fn who_gives_up_leaves_nothing_behind() {
    let dead = Server::start("127.0.0.1:0", |_, _| vec![]).await;
    let client = client();
    let asked = tokio::time::timeout(Duration::from_millis(50), ask(&client, &dead)).await;
    assert!(asked.is_err());
    let socket = client.socket(dead.address).unwrap();
    assert!(socket.waiting.lock().is_empty());
}

#[tokio::test]
async fn many_hashes_are_scraped_at_once() {
    let server = Server::good("127.0.0.1:0", "1.2.3.4:5").await;
    let hashes: Vec<InfoHashV1> = (0..74).map(|number| InfoHashV1([number; 20])).collect();
    let reply = client()
        .ask(&[server.address], |connection, transaction| {
            let mut out = Vec::new();
            let request = UdpRequest::Scrape {
                connection,
                transaction,
                info_hashes: InfoHashes::new(&hashes),
            };
            request.encode(&mut out);
            out
        })
        .await;
    let Ok(UdpReply::Scrape { files, .. }) = reply else {
        panic!("{reply:?}")
    };
    let seeds: Vec<u32> = files.iter().map(|file| file.complete).collect();
    assert_eq!(seeds, (0..74).collect::<Vec<u32>>());
}

#[tokio::test]
async fn the_ids_that_are_kept_are_bounded() {
    let client = client();
    for number in 0..=CONNECTIONS_MAX {
        let port = u16::try_from(number).unwrap();
        client.cell(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    assert!(client.lock_connections().len() <= CONNECTIONS_MAX);
}

#[tokio::test]
async fn nothing_leaves_when_the_interface_is_gone() {
    let server = Server::good("127.0.0.1:0", "1.2.3.4:5").await;
    let binding = Binding {
        interface: Some("absent0".to_owned()),
        ..Binding::default()
    };
    let client = UdpClient::repeating(binding, Registry::new(0).control(), SOON);
    let error = ask(&client, &server).await.unwrap_err();
    assert!(error.contains("absent0"), "{error}");
    assert_eq!(server.count(), (0, 0));
}

#[test]
fn transactions_do_not_follow_a_pattern() {
    let transactions = Transactions {
        key: RandomState::new(),
        count: AtomicU64::new(0),
    };
    let some: Vec<u32> = (0..1000).map(|_| transactions.next().0).collect();
    let mut differences: Vec<u32> = some
        .windows(2)
        .map(|two| two[1].wrapping_sub(two[0]))
        .collect();
    differences.sort_unstable();
    differences.dedup();
    assert!(differences.len() > 990);
}

#[tokio::test]
async fn a_port_that_nobody_listens_at_is_told_as_such() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gone = socket.local_addr().unwrap();
    drop(socket);
    // Somebody is there, and says nothing: that is no refusal.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    let mut client = UdpClient::new(Binding::default(), Registry::new(0).control());
    client.refused_after = Duration::from_millis(50);
    let asked = |address: SocketAddr| {
        let client = &client;
        async move { client.ask(&[address], |_, _| Vec::new()).await }
    };
    let mut buffer = [0; 32];
    let heard = async {
        for _ in 0..2 {
            assert_eq!(silent.recv(&mut buffer).await.unwrap(), 16);
        }
    };
    tokio::select! {
        reply = asked(silent_at) => panic!("{reply:?}"),
        () = heard => {}
    }
    let error = asked(gone).await.unwrap_err();
    assert!(error.contains("connection refused"), "{error}");
}
