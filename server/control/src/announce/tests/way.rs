//! The way to the trackers: proxies and bindings, which are kept to or nothing leaves.

use std::net::Ipv6Addr;

use seedring_metrics::ControlGauge;

use super::*;
use crate::announce::udp::tests::Server as UdpServer;

/// A proxy that notes what it is asked for and answers as a tracker.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A SOCKS5 proxy (RFC 1928) for one GET a connection, which it answers itself.
async fn socks() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 2];
            stream.read_exact(&mut head).await.unwrap();
            let mut methods = vec![0; usize::from(head[1])];
            stream.read_exact(&mut methods).await.unwrap();
            stream.write_all(b"\x05\x00").await.unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).await.unwrap();
            // Version, connect, reserved, and the name, not an address.
            assert_eq!(request[..4], [5, 1, 0, 3]);
            let mut name = vec![0; usize::from(request[4]) + 2];
            stream.read_exact(&mut name).await.unwrap();
            let port = name.split_off(name.len() - 2);
            let name = String::from_utf8(name).unwrap();
            let port = u16::from_be_bytes([port[0], port[1]]);
            noted.lock().unwrap().push(format!("{name}:{port}"));
            let good = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01";
            stream.write_all(good).await.unwrap();
            let mut input = Vec::new();
            while !input.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                    break;
                }
            }
            let _ = stream.write_all(&http("200 OK", "", GOOD)).await;
        }
    });
    Proxy { address, asked }
}

fn through(proxy: String) -> Client {
    client(&AnnounceConfig {
        proxy: Some(proxy),
        timeout: Duration::from_secs(5),
        ..config()
    })
}

#[tokio::test]
async fn a_socks_proxy_gets_the_name() {
    let proxy = socks().await;
    for scheme in ["socks5", "socks5h"] {
        let client = through(format!("{scheme}://{}", proxy.address));
        let outcome = announce_with(client, "http://tracker.example:8080/announce").await;
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    }
    assert_eq!(proxy.asked(), ["tracker.example:8080"; 2]);
}

/// What the library that is used for it does not tell.
#[tokio::test]
async fn a_socks_proxy_whose_name_is_wrong_is_told_from_one_that_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap().to_string();
    drop(listener);
    // Longer than a part of a name can be, so that no server is asked for it.
    let wrong = format!("{}.invalid:1080", "a".repeat(64));
    for (proxy, why) in [
        (&wrong, "cannot resolve the name"),
        (&gone, "nobody takes connections"),
    ] {
        let client = through(format!("socks5://{proxy}"));
        let error = error_of(announce_with(client, "http://tracker.example:8080/announce").await);
        let names_it = format!("the proxy socks5://{proxy} (announce.proxy) cannot be reached");
        assert!(
            error.starts_with(&names_it) && error.contains(why),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_http_proxy_gets_the_whole_url() {
    let proxy = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let client = through(format!("http://{}", proxy.address));
    let outcome = announce_with(client, "http://tracker.example/announce?key=0123456789").await;
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    let head = proxy.heads()[0].clone();
    assert!(head.starts_with("GET http://tracker.example/announce?key=0123456789&info_hash="));
}

#[tokio::test]
async fn nothing_goes_past_a_proxy() {
    let tracker = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let udp = UdpServer::good("127.0.0.1:0", "192.0.2.1:5").await;
    // A port that nobody listens at.
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for scheme in ["http", "socks5"] {
        let proxy = format!("{scheme}://user:hunter22@{gone}");
        let error = error_of(announce_with(through(proxy.clone()), &tracker.url()).await);
        assert!(!error.contains("hunter22"), "{error}");
        // It is not the tracker that is gone.
        let names_it = format!("the proxy {scheme}://{gone} (announce.proxy) cannot be reached");
        assert!(error.starts_with(&names_it), "{error}");
        let outcome = announce_with(through(proxy), &format!("udp://{}", udp.address)).await;
        let Outcome::Refused { reason, retry } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(reason.contains("proxy"), "{reason}");
        assert_eq!(retry, Some(RetryIn::Never));
    }
    assert_eq!((tracker.heads().len(), udp.count()), (0, (0, 0)));
}

/// The proxy's refusals are not told as the tracker's.
#[tokio::test]
async fn a_proxy_that_wants_a_password_is_named() {
    let refuses = |_: &str| Say::Bytes(http("407 Proxy Authentication Required", "", b""));
    let proxy = Server::start("127.0.0.1", refuses).await;
    for url in ["http://a.example/announce", "https://a.example/announce"] {
        let client = through(format!("http://{}", proxy.address));
        let error = error_of(announce_with(client, url).await);
        let names_it = format!("the proxy http://{} wants a user name", proxy.address);
        assert!(error.starts_with(&names_it), "{error}");
    }
}

/// Whoever sees that an announce has failed sees which tracker does, too.
#[tokio::test]
async fn a_tracker_that_fails_is_in_the_gauge_with_its_first_failure() {
    let cells = Registry::new(0).control();
    let handle = Announcer::start(&config(), IDENTITY, cells.clone()).unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", gone.local_addr().unwrap());
    drop(gone);
    let totals = Arc::new(TorrentTotals::default());
    handle.add(HASH, &[vec![url]], false, totals);
    while cells.counter(ControlCounter::AnnouncesFailed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cells.gauge(ControlGauge::TrackersFailing), 1);
}

#[tokio::test]
async fn an_empty_answer_is_told_as_one() {
    let tracker = Server::start("127.0.0.1", |_| ok(b"")).await;
    let error = error_of(announce(&tracker.url()).await);
    assert!(error.contains("nothing in it"), "{error}");
}

/// An `https` URL of a server that speaks HTTP.
#[tokio::test]
async fn tls_where_there_is_none_is_told_as_that() {
    for answer in [&http("400 Bad Request", "", b"")[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/announce", listener.local_addr().unwrap());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            // What else has come is read, lest the end be a reset.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (outcome, ()) = tokio::join!(announce(&url), serving);
        let error = error_of(outcome);
        assert!(error.contains("does not speak TLS"), "{error}");
    }
}

#[tokio::test]
async fn what_names_a_place_inside_is_refused_behind_a_proxy_too() {
    let proxy = Server::start("127.0.0.1", |head| {
        if head.contains("//away.example/") {
            return moved("http://192.168.1.1/announce");
        }
        ok(GOOD)
    })
    .await;
    let closed = AnnounceConfig {
        proxy: Some(format!("http://{}", proxy.address)),
        allow_private_trackers: false,
        ..config()
    };
    for host in [
        "127.0.0.1",
        "[::1]",
        "localhost",
        "router",
        "nas.local",
        "10.1.2.3",
    ] {
        let url = format!("http://{host}/announce");
        error_of(announce_with(client(&closed), &url).await);
    }
    assert_eq!(proxy.heads().len(), 0);
    let open = through(format!("http://{}", proxy.address));
    error_of(announce_with(open, "http://away.example/announce").await);
    assert_eq!(proxy.heads().len(), 1);
    // With leave, what is inside is asked, but only as trackers are.
    let open = || through(format!("http://{}", proxy.address));
    error_of(announce_with(open(), "http://10.1.2.3/admin").await);
    let outcome = announce_with(open(), "http://10.1.2.3/announce").await;
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
}

fn bound(binding: Binding) -> Client {
    client(&AnnounceConfig {
        binding,
        timeout: Duration::from_secs(5),
        ..config()
    })
}

#[tokio::test]
async fn a_bound_address_is_where_we_come_from_or_nothing_leaves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let source = tokio::spawn(async move {
        let (mut stream, source) = listener.accept().await.unwrap();
        let mut input = vec![0; 4096];
        let _ = stream.read(&mut input).await;
        stream.write_all(&http("200 OK", "", GOOD)).await.unwrap();
        source
    });
    let here = Binding {
        v4: Some([127, 0, 0, 3].into()),
        ..Binding::default()
    };
    let outcome = announce_with(bound(here.clone()), &url).await;
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    assert_eq!(source.await.unwrap().ip(), IpAddr::from([127, 0, 0, 3]));

    let udp = UdpServer::good("127.0.0.1:0", "192.0.2.1:5").await;
    let http = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let v6 = UdpServer::good("[::1]:0", "[2001:db8::1]:5").await;
    let gone = Binding {
        v4: Some([192, 0, 2, 77].into()),
        ..Binding::default()
    };
    for url in [http.url(), format!("udp://{}", udp.address)] {
        error_of(announce_with(bound(gone.clone()), &url).await);
    }
    // The other family would go round the binding.
    error_of(announce_with(bound(here.clone()), &format!("udp://{}", v6.address)).await);
    assert_eq!(
        (http.heads().len(), udp.count(), v6.count()),
        (0, (0, 0), (0, 0))
    );
    let outcome = announce_with(bound(here), &format!("udp://{}", udp.address)).await;
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
}

#[tokio::test]
async fn no_redirect_leads_round_a_bound_address() {
    // It hears IPv4 too, so that an IPv4 address in the clothes of IPv6 reaches it.
    let other = Server::start("::", |_| ok(GOOD)).await;
    let port = other.address.port();
    let here = Binding {
        v4: Some([127, 0, 0, 1].into()),
        ..Binding::default()
    };
    let both = Binding {
        v6: Some(Ipv6Addr::LOCALHOST),
        ..here.clone()
    };
    for host in ["[::1]", "[::ffff:127.0.0.1]"] {
        let target = format!("http://{host}:{port}/announce");
        let tracker = Server::start("127.0.0.1", move |_| moved(&target)).await;
        for binding in [here.clone(), both.clone()] {
            let error = error_of(announce_with(bound(binding), &tracker.url()).await);
            assert!(error.contains("the family that is bound"), "{error}");
        }
        assert_eq!((tracker.heads().len(), other.heads().len()), (2, 0));
        // Bound to nothing, it is as good as any.
        let outcome = announce_with(bound(Binding::default()), &tracker.url()).await;
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
        other.heads.lock().unwrap().clear();
    }
    // What is of the family is followed.
    let target = format!("http://127.0.0.1:{port}/announce");
    let tracker = Server::start("127.0.0.1", move |_| moved(&target)).await;
    let outcome = announce_with(bound(here), &tracker.url()).await;
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_bound_interface_is_kept_to_or_nothing_leaves() {
    let udp = UdpServer::good("127.0.0.1:0", "192.0.2.1:5").await;
    let http = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let by = |name: &str| {
        bound(Binding {
            interface: Some(name.to_owned()),
            ..Binding::default()
        })
    };
    let urls = [http.url(), format!("udp://{}", udp.address)];
    for url in &urls {
        let error = error_of(announce_with(by("absent0"), url).await);
        assert!(error.contains("announce.bind_interface"), "{error}");
    }
    assert_eq!((http.heads().len(), udp.count()), (0, (0, 0)));
    for url in &urls {
        let outcome = announce_with(by("lo"), url).await;
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    }
}

/// What is to be done about it is another thing in each case.
#[tokio::test]
async fn what_may_not_be_asked_is_told_with_the_key_that_keeps_it_from_that() {
    let outside = AnnounceConfig {
        allow_private_trackers: false,
        ..config()
    };
    for url in ["http://10.0.0.1:1/announce", "udp://10.0.0.1:1"] {
        let error = error_of(announce_with(client(&outside), url).await);
        assert!(error.contains("announce.allow_private_trackers"), "{error}");
        let v6 = Binding {
            v6: Some(Ipv6Addr::LOCALHOST),
            ..Binding::default()
        };
        let error = error_of(announce_with(bound(v6), url).await);
        assert!(error.contains("announce.bind_v6"), "{error}");
    }
}
